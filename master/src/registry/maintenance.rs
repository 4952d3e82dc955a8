//! Maintenance in the registry: the schedule and the machines on it.
//!
//! Pure. Source: log.md §8, master.md §12, with its texts.
//!
//! ```text
//!   up ── UpdateSchedule names it ──▶ draining ── StartMaintenance ──▶ down
//!    ▲◀── UpdateSchedule drops it ───────┘                              │
//!    └────────────────────────── StopMaintenance ───────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::maintenance::{MachineId, MachineMode, Schedule, Unavailability};
use serde::{Deserialize, Serialize};

use super::{Change, Registry};

/// A machine on the schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// As the schedule names it.
    pub id: MachineId,
    /// Draining or down.
    pub mode: MachineMode,
    /// When it is not to be used.
    pub unavailability: Unavailability,
}

/// Why a step of maintenance cannot be taken. Machines are printed with their host name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MaintenanceRejection {
    /// A window without machines.
    #[error("List of machines in the maintenance window is empty")]
    EmptyWindow,
    /// A window that ends before it begins.
    #[error("Unavailability 'duration' is negative")]
    NegativeDuration,
    /// One machine twice.
    #[error("Machine '{0}' appears more than once in the schedule")]
    Twice(String),
    /// A machine without name and address.
    #[error("Both 'hostname' and 'ip' for a machine are empty")]
    Nameless,
    /// An address that is none.
    #[error("Failed to parse IPv4: {0}")]
    BadIp(String),
    /// A machine that is down would leave the schedule.
    #[error("Machine '{0}' is deactivated and cannot be removed from the schedule")]
    DroppedWhileDown(String),
    /// No machine is named.
    #[error("List of machines is empty")]
    NoMachines,
    /// The machine is not on the schedule.
    #[error("Machine '{0}' is not part of a maintenance schedule")]
    NotScheduled(String),
    /// The machine is down already.
    #[error("Machine '{0}' is not in DRAINING mode and cannot be brought down")]
    NotDraining(String),
    /// The machine is not down.
    #[error("Machine '{0}' is not in DOWN mode and cannot be brought up")]
    NotDown(String),
}

impl Registry {
    pub(super) fn update_schedule(
        &mut self,
        schedule: &Schedule,
    ) -> Result<Change, MaintenanceRejection> {
        let mut machines = BTreeMap::new();
        for window in &schedule.windows {
            if window.machine_ids.is_empty() {
                return Err(MaintenanceRejection::EmptyWindow);
            }
            let duration = window.unavailability.duration;
            if duration.is_some_and(|duration| duration.is_negative()) {
                return Err(MaintenanceRejection::NegativeDuration);
            }
            for id in &window.machine_ids {
                let key = key(id)?;
                let known = self.machines.get(&key);
                let machine = Machine {
                    id: known.map_or_else(|| id.clone(), |known| known.id.clone()),
                    mode: known.map_or(MachineMode::Draining, |known| known.mode),
                    unavailability: window.unavailability,
                };
                let text = print(&key);
                if machines.insert(key, machine).is_some() {
                    return Err(MaintenanceRejection::Twice(text));
                }
            }
        }
        let dropped = self.machines.iter().find(|(key, machine)| {
            machine.mode == MachineMode::Down && !machines.contains_key(*key)
        });
        if let Some((key, _)) = dropped {
            return Err(MaintenanceRejection::DroppedWhileDown(print(key)));
        }
        let schedule = Some(schedule.clone()).filter(|schedule| !schedule.windows.is_empty());
        let changed = self.schedule != schedule || self.machines != machines;
        self.schedule = schedule;
        self.machines = machines;
        Ok(Change::when(changed))
    }

    /// The keys of these machines, which are all on the schedule and in this mode; another mode is refused so.
    fn all_in(
        &self,
        mode: MachineMode,
        ids: &[MachineId],
        other: fn(String) -> MaintenanceRejection,
    ) -> Result<BTreeSet<MachineId>, MaintenanceRejection> {
        let keys = keys(ids)?;
        for key in &keys {
            match self.machines.get(key) {
                None => return Err(MaintenanceRejection::NotScheduled(print(key))),
                Some(machine) if machine.mode != mode => return Err(other(print(key))),
                Some(_) => {}
            }
        }
        Ok(keys)
    }

    pub(super) fn start_maintenance(
        &mut self,
        ids: &[MachineId],
    ) -> Result<Change, MaintenanceRejection> {
        let keys = self.all_in(
            MachineMode::Draining,
            ids,
            MaintenanceRejection::NotDraining,
        )?;
        for key in &keys {
            if let Some(machine) = self.machines.get_mut(key) {
                machine.mode = MachineMode::Down;
            }
        }
        Ok(Change::Changed)
    }

    pub(super) fn stop_maintenance(
        &mut self,
        ids: &[MachineId],
    ) -> Result<Change, MaintenanceRejection> {
        let keys = self.all_in(MachineMode::Down, ids, MaintenanceRejection::NotDown)?;
        self.machines.retain(|key, _| !keys.contains(key));
        if let Some(schedule) = &mut self.schedule {
            for window in &mut schedule.windows {
                let up = |id: &MachineId| keys.contains(&normalised(id));
                window.machine_ids.retain(|id| !up(id));
            }
            schedule
                .windows
                .retain(|window| !window.machine_ids.is_empty());
            if schedule.windows.is_empty() {
                self.schedule = None;
            }
        }
        Ok(Change::Changed)
    }

    /// The machines are those of the schedule, and none of them is up.
    pub(super) fn check_machines(&self) -> Result<(), String> {
        let windows = self.schedule.iter().flat_map(|schedule| &schedule.windows);
        let scheduled: BTreeSet<MachineId> = windows
            .flat_map(|window| window.machine_ids.iter().map(normalised))
            .collect();
        if !scheduled.iter().eq(self.machines.keys()) {
            return Err(format!(
                "machines {:?} are not those of the schedule, {scheduled:?}",
                self.machines.keys()
            ));
        }
        let up = |machine: &&Machine| machine.mode == MachineMode::Up;
        match self.machines.values().find(up) {
            Some(machine) => Err(format!(
                "machine {:?} is up but on the schedule",
                machine.id
            )),
            None => Ok(()),
        }
    }
}

/// A machine as machines are compared: host name in lower case, and empty texts are missing ones.
fn normalised(id: &MachineId) -> MachineId {
    let mut id = id.normalised();
    id.hostname = id.hostname.filter(|name| !name.is_empty());
    id.ip = id.ip.filter(|ip| !ip.is_empty());
    id
}

fn key(id: &MachineId) -> Result<MachineId, MaintenanceRejection> {
    let key = normalised(id);
    if let Some(ip) = &key.ip
        && ip.parse::<std::net::Ipv4Addr>().is_err()
    {
        return Err(MaintenanceRejection::BadIp(ip.clone()));
    }
    if key.hostname.is_none() && key.ip.is_none() {
        return Err(MaintenanceRejection::Nameless);
    }
    Ok(key)
}

fn keys(ids: &[MachineId]) -> Result<BTreeSet<MachineId>, MaintenanceRejection> {
    if ids.is_empty() {
        return Err(MaintenanceRejection::NoMachines);
    }
    let mut keys = BTreeSet::new();
    for id in ids {
        let key = key(id)?;
        let text = print(&key);
        if !keys.insert(key) {
            return Err(MaintenanceRejection::Twice(text));
        }
    }
    Ok(keys)
}

fn print(key: &MachineId) -> String {
    serde_json::to_string(key).unwrap_or_else(|_| format!("{key:?}"))
}

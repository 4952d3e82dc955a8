//! Planned unavailability of machines.
//!
//! Pure. Source: Mesos `include/mesos/v1/maintenance/maintenance.proto`.

use crate::common::{DurationInfo, TimeInfo};
use crate::wire::{names, record};

record! {
    /// When something will not be available.
    #[derive(Copy, Eq)]
    pub struct Unavailability {
        /// From when.
        pub start: TimeInfo,
        /// For how long; for ever when missing.
        pub duration: Option<DurationInfo>,
    }
}

record! {
    /// A machine; at least one of the two is set.
    #[derive(Eq, Hash, PartialOrd, Ord)]
    pub struct MachineId {
        /// Its host name; case does not matter.
        pub hostname: Option<String>,
        /// Its IPv4 address.
        pub ip: Option<String>,
    }
}

impl MachineId {
    /// A machine by both names.
    pub fn new(hostname: impl Into<String>, ip: impl Into<String>) -> Self {
        Self {
            hostname: Some(hostname.into()),
            ip: Some(ip.into()),
        }
    }

    /// The same with its host name in lower case, as machines are compared.
    #[must_use]
    pub fn normalised(&self) -> Self {
        Self {
            hostname: self.hostname.as_ref().map(|name| name.to_lowercase()),
            ip: self.ip.clone(),
        }
    }
}

names! {
    /// Where a machine stands.
    pub enum MachineMode default Up {
        /// In use.
        Up = 1 "UP",
        /// In use, but scheduled to go down.
        Draining = 2 "DRAINING",
        /// Not in use.
        Down = 3 "DOWN",
    } else
    /// A mode this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// Machines that are unavailable together.
    #[derive(Eq)]
    pub struct Window {
        /// The machines.
        pub machine_ids: Vec<MachineId>,
        /// When.
        pub unavailability: Unavailability,
    }
}

record! {
    /// All planned windows.
    #[derive(Eq)]
    pub struct Schedule {
        /// The windows.
        pub windows: Vec<Window>,
    }
}

//! What the machine has: found out, and merged with what the operator says.
//!
//! `merge` decides; `detect` is the only part that looks at the machine. Source: Mesos
//! `src/slave/containerizer/containerizer.cpp`.

use std::path::Path;

use meseta_protocol::ids::Role;
use meseta_protocol::resources::{Reservation, Resource, Resources, Scalar};

use crate::recovery::Leeway;

/// What was found out about the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detected {
    /// Cores; 0 when unknown.
    pub cpus: u64,
    /// Memory in MiB.
    pub mem_mib: Option<u64>,
    /// Size of the work directory's file system in MiB.
    pub disk_mib: Option<u64>,
}

const GIB: u64 = 1024;

/// What is left for tasks of `total` MiB: all but `kept` when there is twice that, else half.
fn offered(total: u64, kept: u64) -> u64 {
    if total >= 2 * kept {
        total - kept
    } else {
        total / 2
    }
}

/// Which of an agent's resources are found out when these are given, and how much less of each than an earlier run has
/// found is no matter: half of what is kept for the system, so that what tasks may use never comes near to all.
pub fn leeway(given: &[Resource], detected: &Detected) -> Leeway {
    let spare = |total: Option<u64>, kept: u64| {
        let spare = total.map_or(0, |total| (total - offered(total, kept)) / 2);
        Scalar::whole(i64::try_from(spare).unwrap_or(i64::MAX / 1000))
    };
    let found = [
        ("cpus", Scalar::ZERO),
        ("mem", spare(detected.mem_mib, GIB)),
        ("disk", spare(detected.disk_mib, 5 * GIB)),
    ];
    let mut found: Leeway = found.map(|(name, less)| (name.to_owned(), less)).into();
    found.retain(|name, _| given.iter().all(|resource| *resource.name != **name));
    found
}

/// All the agent has: what was `given`, and for each of cpus, mem, disk and ports that was not named, what was
/// detected. A name given with nothing of it (`disk:0`) is left out and not filled in.
pub fn merge(given: Vec<Resource>, detected: &Detected, default_role: &Role) -> Resources {
    let named = |name: &str| given.iter().any(|resource| *resource.name == *name);
    let cpus = detected.cpus.max(1);
    let mem = detected.mem_mib.map_or(GIB, |total| offered(total, GIB));
    let disk = detected
        .disk_mib
        .map_or(10 * GIB, |total| offered(total, 5 * GIB));
    let mut found: Vec<Resource> = [("cpus", cpus), ("mem", mem), ("disk", disk)]
        .into_iter()
        .filter(|(name, _)| !named(name))
        .map(|(name, amount)| {
            let amount = i64::try_from(amount).unwrap_or(i64::MAX / 1000);
            Resource::scalar(name, Scalar::whole(amount))
        })
        .collect();
    if !named("ports") {
        found.push(Resource::ranges("ports", [(31_000, 32_000)]));
    }
    if !default_role.is_star() {
        found = found
            .into_iter()
            .map(|resource| resource.reserved_by(Reservation::fixed(default_role.clone())))
            .collect();
    }
    given
        .into_iter()
        .chain(found)
        .filter(|resource| !resource.is_empty())
        .collect()
}

/// Looks at this machine. The nearest existing directory above `work_dir` stands for it.
pub fn detect(work_dir: &Path) -> Detected {
    let cpus = std::thread::available_parallelism().map_or(0, |n| n.get() as u64);
    let existing = work_dir.ancestors().find(|path| path.exists());
    let disk_mib = existing
        .and_then(|path| nix::sys::statvfs::statvfs(path).ok())
        .map(|fs| fs.blocks().saturating_mul(fs.fragment_size()) >> 20);
    let mem_mib = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| mem_total(&text));
    Detected {
        cpus,
        mem_mib,
        disk_mib,
    }
}

/// The line `MemTotal: <n> kB`, in MiB.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_merged(given: &str, detected: Detected, expected: &str) {
        let role = Role::star();
        let given = Resources::parse_flag_entries(given, &role).unwrap();
        assert_eq!(merge(given, &detected, &role), expected.parse().unwrap());
    }

    #[test]
    fn what_is_not_named_is_found_out() {
        let large = Detected {
            cpus: 4,
            mem_mib: Some(8192),
            disk_mib: Some(20_480),
        };
        assert_merged(
            "",
            large,
            "cpus:4; disk:15360; mem:7168; ports:[31000-32000]",
        );
        assert_merged(
            "cpus:1;ports:[1-2]",
            large,
            "cpus:1; disk:15360; mem:7168; ports:[1-2]",
        );
        assert_merged(
            "disk:0;mem:1;gpus:0;cpus:1",
            large,
            "cpus:1; mem:1; ports:[31000-32000]",
        );
    }

    #[test]
    fn small_machines_offer_half_and_unknown_ones_a_little() {
        let small = Detected {
            cpus: 0,
            mem_mib: Some(1000),
            disk_mib: Some(4000),
        };
        assert_merged("", small, "cpus:1; disk:2000; mem:500; ports:[31000-32000]");
        assert_merged(
            "",
            Detected::default(),
            "cpus:1; disk:10240; mem:1024; ports:[31000-32000]",
        );
    }

    #[test]
    fn what_is_found_out_may_become_less_by_half_of_what_is_kept() {
        let role = Role::star();
        let detected = Detected {
            cpus: 4,
            mem_mib: Some(1000),
            disk_mib: Some(20_480),
        };
        let of = |given: &str, detected: &Detected| {
            let given = Resources::parse_flag_entries(given, &role).unwrap();
            let all = leeway(&given, detected).into_iter();
            all.map(|(name, less)| format!("{name} {less}")).collect()
        };
        let all: Vec<String> = of("", &detected);
        assert_eq!(all, ["cpus 0", "disk 2560", "mem 250"]);
        assert_eq!(of("mem:1;cpus:0", &detected), ["disk 2560"]);
        let unknown = of("", &Detected::default());
        assert_eq!(unknown, ["cpus 0", "disk 0", "mem 0"]);
    }

    #[test]
    fn a_default_role_holds_for_what_is_found_out_too() {
        let role = Role::from("ops");
        let all = merge(Vec::new(), &Detected::default(), &role);
        assert_eq!(all.reserved(Some(&role)), all);
    }

    #[test]
    fn this_machine_has_something() {
        let here = detect(Path::new("/no/such/directory"));
        assert!(
            here.cpus > 0 && here.mem_mib.is_some() && here.disk_mib.is_some(),
            "{here:?}"
        );
        assert_eq!(
            mem_total("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            Some(2)
        );
    }
}

//! A disk that can be full, for tests of the real programs.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// A small file system in memory, in the place of a directory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many MiB; needs root.
    pub fn mount(at: PathBuf, size: u32) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "meseta-test"])
            .arg(&at)
            .output()
            .unwrap();
        assert!(mount.status.success(), "{mount:?}");
        Self(at)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        let zeros = [0; 4096];
        let full = loop {
            if let Err(error) = filler.write_all(&zeros) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Gives what [`SmallDisk::fill`] has taken.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

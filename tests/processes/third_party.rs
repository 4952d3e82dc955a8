//! Clients that others wrote for Mesos, installed as their registries have them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use meseta_tests::{dev_ca, skipped};

/// A package with a script `install-NAME` that installs it.
pub(crate) struct Package {
    name: &'static str,
    done: OnceLock<Result<PathBuf, String>>,
}

impl Package {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            done: OnceLock::new(),
        }
    }

    /// Where it is; none, and the test is skipped, when it cannot be installed, which must be that the registry or the
    /// language is not there.
    pub(crate) fn installed(&self, test: &str) -> Option<&Path> {
        match self.done.get_or_init(|| install(self.name)) {
            Ok(dir) => Some(dir),
            Err(why) => {
                skipped(test, &format!("{} cannot be installed: {why}", self.name));
                None
            }
        }
    }
}

fn install(name: &str) -> Result<PathBuf, String> {
    let dir = dev_ca().with_file_name(format!("test-{name}"));
    let done = Command::new(script(&format!("install-{name}")))
        .arg(&dir)
        .output()
        .unwrap();
    if done.status.success() {
        return Ok(dir);
    }
    let said = String::from_utf8_lossy(&done.stdout);
    assert_ne!(done.status.code(), Some(3), "{said}");
    Err(said.lines().last().unwrap_or("it says nothing").to_owned())
}

/// A file that is written for one of these clients.
pub(crate) fn script(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("third_party")
        .join(file)
}

/// All that a program has said.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

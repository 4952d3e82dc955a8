//! Flags as `/flags` shows them.

use std::collections::BTreeMap;
use std::path::Path;

use super::Flags;
use crate::environment::duration_text;
use crate::logs::bytes_text;

impl Flags {
    /// Each flag with its value in the form in which it is given.
    pub(super) fn shown(&self, launcher_dir: &Path) -> BTreeMap<String, String> {
        let mut shown: BTreeMap<String, String> = [
            ("master", self.master.clone()),
            ("work_dir", self.work_dir.display().to_string()),
            ("launcher_dir", launcher_dir.display().to_string()),
            ("default_role", self.default_role.clone()),
            (
                "registration_backoff_factor",
                duration_text(self.registration_backoff_factor),
            ),
            (
                "executor_registration_timeout",
                duration_text(self.executor_registration_timeout),
            ),
            (
                "executor_shutdown_grace_period",
                duration_text(self.executor_shutdown_grace_period),
            ),
            ("recover", self.recover.name().to_owned()),
            ("strict", self.strict.to_string()),
            (
                "reconfiguration_policy",
                self.reconfiguration_policy.name().to_owned(),
            ),
            (
                "executor_reregistration_timeout",
                duration_text(self.executor_reregistration_timeout),
            ),
            ("recovery_timeout", duration_text(self.recovery_timeout)),
            (
                "executor_transport",
                self.executor_transport.name().to_owned(),
            ),
            ("max_stdout_size", bytes_text(self.max_stdout_size)),
            ("max_stderr_size", bytes_text(self.max_stderr_size)),
            ("rotated_logs", self.rotated_logs.to_string()),
            ("gc_delay", duration_text(self.gc_delay)),
            ("gc_disk_headroom", self.gc_disk_headroom.to_string()),
            (
                "disk_watch_interval",
                duration_text(self.disk_watch_interval),
            ),
            ("switch_user", self.switch_user.to_string()),
            (
                "authenticate_http_executors",
                self.authenticate_http_executors.to_string(),
            ),
            ("ip", self.node.ip.to_string()),
            ("logging_level", self.node.logging_level.clone()),
            (
                "max_completed_executors_per_framework",
                self.max_completed_executors_per_framework.to_string(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        shown.extend(self.http.shown());
        if let Some(file) = &self.jwt_secret_key {
            shown.insert("jwt_secret_key".to_owned(), file.display().to_string());
        }
        for (name, value) in [
            ("resources", &self.resources),
            ("attributes", &self.attributes),
        ] {
            if !value.is_empty() {
                shown.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(port) = self.node.port {
            shown.insert("port".to_owned(), port.to_string());
        }
        shown
    }
}

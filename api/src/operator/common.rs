//! Answers that master and agent give alike. Pure.

use std::collections::BTreeMap;

use meseta_protocol::common::TimeInfo;
use serde::Serialize;
use serde_bytes::Bytes;

use super::Api;
use crate::{Mismatch, Tree};

#[derive(Serialize)]
struct Health {
    healthy: bool,
}

#[derive(Serialize)]
struct Named<'a, T> {
    name: &'a str,
    value: T,
}

#[derive(Serialize)]
struct Flags<'a> {
    flags: Vec<Named<'a, Option<&'a str>>>,
}

#[derive(Serialize)]
struct Metrics<'a> {
    metrics: Vec<Named<'a, Option<f64>>>,
}

#[derive(Serialize)]
struct Version<'a, T> {
    version_info: &'a T,
}

#[derive(Serialize)]
struct Level {
    level: u32,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Its virtual path.
    pub path: String,
    /// Names of it.
    pub nlink: Option<i32>,
    /// Bytes in it.
    pub size: Option<u64>,
    /// When it was changed last.
    pub mtime: Option<TimeInfo>,
    /// Kind and rights, as the system has them.
    pub mode: Option<u32>,
    /// Name of its owner.
    pub uid: Option<String>,
    /// Name of its group.
    pub gid: Option<String>,
}

#[derive(Serialize)]
struct Files<'a> {
    file_infos: &'a [FileInfo],
}

#[derive(Serialize)]
struct Part<'a> {
    size: u64,
    data: &'a Bytes,
}

impl Api {
    /// It answers, so it is well.
    ///
    /// # Errors
    /// None that a test has not seen, here and below.
    pub fn health(self) -> Result<Tree, Mismatch> {
        self.response_of("GET_HEALTH", &Health { healthy: true })
    }

    /// Flags by name.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn flags(self, flags: &BTreeMap<String, String>) -> Result<Tree, Mismatch> {
        let flags = flags.iter().map(|(name, value)| Named {
            name,
            value: Some(value.as_str()),
        });
        let flags = flags.collect();
        self.response_of("GET_FLAGS", &Flags { flags })
    }

    /// Metrics by name.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn metrics<'a>(
        self,
        metrics: impl Iterator<Item = (&'a str, f64)>,
    ) -> Result<Tree, Mismatch> {
        let metrics = metrics.map(|(name, value)| Named {
            name,
            value: Some(value),
        });
        let metrics = metrics.collect();
        self.response_of("GET_METRICS", &Metrics { metrics })
    }

    /// What was built: a value with the fields of `VersionInfo`.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn version<T: Serialize>(self, version_info: &T) -> Result<Tree, Mismatch> {
        self.response_of("GET_VERSION", &Version { version_info })
    }

    /// How much is logged.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn logging_level(self, level: u32) -> Result<Tree, Mismatch> {
        self.response_of("GET_LOGGING_LEVEL", &Level { level })
    }

    /// What is in a directory.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn files(self, file_infos: &[FileInfo]) -> Result<Tree, Mismatch> {
        self.response_of("LIST_FILES", &Files { file_infos })
    }

    /// Part of a file of this size.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn file_part(self, size: u64, data: &[u8]) -> Result<Tree, Mismatch> {
        let data = Bytes::new(data);
        self.response_of("READ_FILE", &Part { size, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[derive(Serialize)]
    struct Built {
        version: &'static str,
        other: u8,
    }

    fn shown(tree: Result<Tree, Mismatch>) -> String {
        let of = Api::Agent.response_type();
        String::from_utf8(Format::Json.write(&tree.unwrap(), of)).unwrap()
    }

    #[test]
    fn answers_are_those_of_mesos() {
        let api = Api::Agent;
        assert_eq!(
            shown(api.health()),
            r#"{"type":"GET_HEALTH","get_health":{"healthy":true}}"#
        );
        let flags = BTreeMap::from([("ip".to_owned(), "::1".to_owned())]);
        assert_eq!(
            shown(api.flags(&flags)),
            r#"{"type":"GET_FLAGS","get_flags":{"flags":[{"name":"ip","value":"::1"}]}}"#
        );
        assert_eq!(
            shown(api.metrics([("a/b", 0.0)].into_iter())),
            r#"{"type":"GET_METRICS","get_metrics":{"metrics":[{"name":"a/b","value":0.0}]}}"#
        );
        assert_eq!(
            shown(api.version(&Built {
                version: "1",
                other: 2
            })),
            r#"{"type":"GET_VERSION","get_version":{"version_info":{"version":"1"}}}"#
        );
        assert_eq!(
            shown(api.logging_level(0)),
            r#"{"type":"GET_LOGGING_LEVEL","get_logging_level":{"level":0}}"#
        );
        assert_eq!(
            shown(api.files(&[])),
            r#"{"type":"LIST_FILES","list_files":{}}"#
        );
        assert_eq!(
            shown(api.file_part(0, b"")),
            r#"{"type":"READ_FILE","read_file":{"size":0,"data":""}}"#
        );
    }
}

//! What was built: the fields that clients of Mesos read. Pure.

use serde::Serialize;

/// Which program this is. What its builder did not tell is empty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Version {
    /// Date of the build as text: `MESETA_BUILD_DATE` when it was built.
    pub build_date: &'static str,
    /// The same in seconds since 1970.
    pub build_time: f64,
    /// Who built it: `MESETA_BUILD_USER`.
    pub build_user: &'static str,
    /// Which source it was built from: `MESETA_BUILD_SHA`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_sha: Option<&'static str>,
    /// The version of Mesos whose APIs are served, by which clients decide what they may use: [`Version::API`].
    pub version: &'static str,
    /// The program's own.
    pub meseta_version: &'static str,
}

impl Version {
    /// The version of Mesos whose APIs are served.
    pub const API: &'static str = "1.11.0";

    /// Of this program.
    pub fn of_program() -> Self {
        let time = option_env!("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok());
        Self {
            build_date: option_env!("MESETA_BUILD_DATE").unwrap_or_default(),
            build_time: time.unwrap_or(0.0),
            build_user: option_env!("MESETA_BUILD_USER").unwrap_or_default(),
            git_sha: option_env!("MESETA_BUILD_SHA"),
            version: Self::API,
            meseta_version: env!("CARGO_PKG_VERSION"),
        }
    }
}

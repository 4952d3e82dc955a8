//! Checks and health checks of tasks.
//!
//! Pure. The two differ in the words of their texts only: "check" and "health check". Source: Mesos
//! `src/common/validation.cpp` (`validateCheckInfo`, `validateHealthCheck`).

use meseta_protocol::common::CommandInfo;
use meseta_protocol::task::{CheckInfo, CheckType, HealthCheck};

use super::container::{CommandRejection, validate_command};

/// What is wrong with a check. `kind` is `check` or `health check`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckRejection {
    /// No type.
    #[error("{0} must specify 'type'")]
    NoType(&'static str),
    /// A type this version does not know.
    #[error("'UNKNOWN' is not a valid {0} type")]
    UnknownType(&'static str),
    /// The field of its type is missing.
    #[error("Expecting '{field}' to be set for {check} {kind}")]
    Missing {
        /// The field.
        field: &'static str,
        /// The type.
        check: CheckType,
        /// Which sort of check.
        kind: &'static str,
    },
    /// The command has no text.
    #[error("Command {kind} must contain {what}")]
    NoCommand {
        /// Which sort of check.
        kind: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// The command makes no sense.
    #[error("Check's `CommandInfo` is invalid: {0}")]
    Command(#[source] CommandRejection),
    /// Neither http nor https.
    #[error("Unsupported HTTP health check scheme: '{0}'")]
    Scheme(String),
    /// A relative path.
    #[error("The path '{path}' of HTTP {kind} must start with '/'")]
    Path {
        /// The path.
        path: String,
        /// Which sort of check.
        kind: &'static str,
    },
    /// A negative length of time.
    #[error("Expecting '{0}' to be non-negative")]
    Negative(&'static str),
}

const CHECK: &str = "check";
const HEALTH_CHECK: &str = "health check";

/// Checks a check.
///
/// # Errors
/// [`CheckRejection`] with the first rule that is broken.
pub fn validate_check(check: &CheckInfo) -> Result<(), CheckRejection> {
    let kind = check.kind.ok_or(CheckRejection::NoType("CheckInfo"))?;
    let missing = missing(kind, CHECK);
    match kind {
        CheckType::Command => {
            let command = check.command.as_ref().ok_or_else(|| missing("command"))?;
            validate_check_command(&command.command, CHECK)?;
        }
        CheckType::Http => {
            let http = check.http.as_ref().ok_or_else(|| missing("http"))?;
            validate_path(http.path.as_deref(), CHECK)?;
        }
        CheckType::Tcp if check.tcp.is_none() => return Err(missing("tcp")),
        CheckType::Tcp => {}
        CheckType::Unknown => return Err(CheckRejection::UnknownType(CHECK)),
    }
    validate_lengths(&[
        ("delay_seconds", check.delay_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
    ])
}

/// Checks a health check.
///
/// # Errors
/// [`CheckRejection`] with the first rule that is broken.
pub fn validate_health_check(check: &HealthCheck) -> Result<(), CheckRejection> {
    let kind = check.kind.ok_or(CheckRejection::NoType("HealthCheck"))?;
    let missing = missing(kind, HEALTH_CHECK);
    match kind {
        CheckType::Command => {
            let command = check.command.as_ref().ok_or_else(|| missing("command"))?;
            validate_check_command(command, HEALTH_CHECK)?;
        }
        CheckType::Http => {
            let http = check.http.as_ref().ok_or_else(|| missing("http"))?;
            if let Some(scheme) = http.scheme.as_deref()
                && !matches!(scheme, "http" | "https")
            {
                return Err(CheckRejection::Scheme(scheme.to_owned()));
            }
            validate_path(http.path.as_deref(), HEALTH_CHECK)?;
        }
        CheckType::Tcp if check.tcp.is_none() => return Err(missing("tcp")),
        CheckType::Tcp => {}
        CheckType::Unknown => return Err(CheckRejection::UnknownType(HEALTH_CHECK)),
    }
    validate_lengths(&[
        ("delay_seconds", check.delay_seconds),
        ("grace_period_seconds", check.grace_period_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
    ])
}

fn missing(check: CheckType, kind: &'static str) -> impl Fn(&'static str) -> CheckRejection {
    move |field| CheckRejection::Missing { field, check, kind }
}

fn validate_check_command(command: &CommandInfo, kind: &'static str) -> Result<(), CheckRejection> {
    if command.value.is_none() {
        let what = if command.shell {
            "'shell command'"
        } else {
            "'executable path'"
        };
        return Err(CheckRejection::NoCommand { kind, what });
    }
    validate_command(command).map_err(CheckRejection::Command)
}

fn validate_path(path: Option<&str>, kind: &'static str) -> Result<(), CheckRejection> {
    match path {
        Some(path) if !path.starts_with('/') => Err(CheckRejection::Path {
            path: path.to_owned(),
            kind,
        }),
        Some(_) | None => Ok(()),
    }
}

fn validate_lengths(lengths: &[(&'static str, f64)]) -> Result<(), CheckRejection> {
    match lengths.iter().find(|(_, seconds)| *seconds < 0.0) {
        Some((field, _)) => Err(CheckRejection::Negative(field)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::task::{
        CommandCheck, HttpCheck, HttpHealthCheck, TcpCheck, TcpHealthCheck,
    };

    fn of(result: Result<(), CheckRejection>) -> String {
        result.map_or_else(|rejection| rejection.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn every_rule_of_checks_has_its_text() {
        let typed = |kind| CheckInfo {
            kind: Some(kind),
            ..CheckInfo::default()
        };
        let command = |command| CheckInfo {
            command: Some(CommandCheck { command }),
            ..typed(CheckType::Command)
        };
        let http = |path: &str| CheckInfo {
            http: Some(HttpCheck {
                port: 1,
                path: Some(path.into()),
            }),
            ..typed(CheckType::Http)
        };
        let tcp = CheckInfo {
            tcp: Some(TcpCheck { port: 1 }),
            ..typed(CheckType::Tcp)
        };
        let file = CommandInfo {
            shell: false,
            ..CommandInfo::default()
        };
        for (check, expected) in [
            (tcp.clone(), "ok"),
            (http("/"), "ok"),
            (command(CommandInfo::shell("x")), "ok"),
            (CheckInfo::default(), "CheckInfo must specify 'type'"),
            (
                typed(CheckType::Unknown),
                "'UNKNOWN' is not a valid check type",
            ),
            (
                typed(CheckType::Command),
                "Expecting 'command' to be set for COMMAND check",
            ),
            (
                typed(CheckType::Http),
                "Expecting 'http' to be set for HTTP check",
            ),
            (
                typed(CheckType::Tcp),
                "Expecting 'tcp' to be set for TCP check",
            ),
            (
                command(CommandInfo::default()),
                "Command check must contain 'shell command'",
            ),
            (
                command(file),
                "Command check must contain 'executable path'",
            ),
            (http("x"), "The path 'x' of HTTP check must start with '/'"),
            (
                CheckInfo {
                    delay_seconds: -1.0,
                    ..tcp.clone()
                },
                "Expecting 'delay_seconds' to be non-negative",
            ),
            (
                CheckInfo {
                    interval_seconds: -1.0,
                    ..tcp.clone()
                },
                "Expecting 'interval_seconds' to be non-negative",
            ),
            (
                CheckInfo {
                    timeout_seconds: -1.0,
                    ..tcp
                },
                "Expecting 'timeout_seconds' to be non-negative",
            ),
        ] {
            assert_eq!(of(validate_check(&check)), expected);
        }
    }

    #[test]
    fn every_rule_of_health_checks_has_its_text() {
        let typed = |kind| HealthCheck {
            kind: Some(kind),
            ..HealthCheck::default()
        };
        let http = |path: &str, scheme: &str| HealthCheck {
            http: Some(HttpHealthCheck {
                path: Some(path.into()),
                scheme: Some(scheme.into()),
                ..HttpHealthCheck::default()
            }),
            ..typed(CheckType::Http)
        };
        let tcp = HealthCheck {
            tcp: Some(TcpHealthCheck::default()),
            ..typed(CheckType::Tcp)
        };
        let command = HealthCheck {
            command: Some(CommandInfo::default()),
            ..typed(CheckType::Command)
        };
        for (check, expected) in [
            (tcp.clone(), "ok"),
            (http("/", "https"), "ok"),
            (HealthCheck::default(), "HealthCheck must specify 'type'"),
            (
                typed(CheckType::Unknown),
                "'UNKNOWN' is not a valid health check type",
            ),
            (
                typed(CheckType::Command),
                "Expecting 'command' to be set for COMMAND health check",
            ),
            (
                typed(CheckType::Http),
                "Expecting 'http' to be set for HTTP health check",
            ),
            (
                typed(CheckType::Tcp),
                "Expecting 'tcp' to be set for TCP health check",
            ),
            (command, "Command health check must contain 'shell command'"),
            (
                http("/", "ftp"),
                "Unsupported HTTP health check scheme: 'ftp'",
            ),
            (
                http("x", "http"),
                "The path 'x' of HTTP health check must start with '/'",
            ),
            (
                HealthCheck {
                    grace_period_seconds: -0.5,
                    ..tcp
                },
                "Expecting 'grace_period_seconds' to be non-negative",
            ),
        ] {
            assert_eq!(of(validate_health_check(&check)), expected);
        }
    }
}

//! Small records that many others use: time, labels, environment, secrets, commands.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`.

use std::fmt;
use std::time::Duration;

use serde_bytes::ByteBuf;

use crate::wire::{names, record};

record! {
    /// A length of time; may be negative, so that a request for a negative one can be refused by name.
    #[derive(Copy, Eq, PartialOrd, Ord, Hash)]
    pub struct DurationInfo {
        /// Length in nanoseconds.
        pub nanoseconds: i64,
    }
}

impl DurationInfo {
    /// The length as the standard type; none when negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.nanoseconds)
            .ok()
            .map(Duration::from_nanos)
    }

    /// Whether the length is below zero.
    pub const fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }
}

/// Saturates at about 292 years.
impl From<Duration> for DurationInfo {
    fn from(length: Duration) -> Self {
        Self {
            nanoseconds: i64::try_from(length.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

record! {
    /// A point in time.
    #[derive(Copy, Eq, PartialOrd, Ord, Hash)]
    pub struct TimeInfo {
        /// Nanoseconds since 1970-01-01 UTC.
        pub nanoseconds: i64,
    }
}

record! {
    /// A note: a key and perhaps a value.
    #[derive(Eq, Hash)]
    pub struct Label {
        /// The key; may repeat.
        pub key: String,
        /// The value.
        pub value: Option<String>,
    }
}

record! {
    /// Notes that Meseta keeps and shows but does not read.
    #[derive(Eq, Hash)]
    pub struct Labels {
        /// The notes in the order given.
        pub labels: Vec<Label>,
    }
}

impl Labels {
    /// Notes with these keys and values.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let label = |(key, value): (&str, &str)| Label {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        };
        Self {
            labels: pairs.into_iter().map(label).collect(),
        }
    }

    /// Whether there is no note.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// `{key: value, key}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, label) in self.labels.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, label.key)?;
            if let Some(value) = &label.value {
                write!(f, ": {value}")?;
            }
        }
        f.write_str("}")
    }
}

names! {
    /// How a secret is given.
    pub enum SecretType default Unknown {
        /// By the name under which a secret store knows it.
        Reference = 1 "REFERENCE",
        /// By its bytes.
        Value = 2 "VALUE",
    } else
    /// Missing, or a way this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// Name of a secret in a store.
    pub struct SecretReference {
        /// Name of the secret.
        pub name: String,
        /// Name of a part of it.
        pub key: Option<String>,
    }
}

/// The bytes of a secret. Debug output hides them.
#[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SecretValue {
    /// The bytes.
    pub data: ByteBuf,
}

impl crate::wire::Presence for SecretValue {}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValue({} bytes)", self.data.len())
    }
}

record! {
    /// A secret, or where to find it.
    pub struct Secret {
        /// Which of the two follows.
        #[serde(rename = "type")]
        pub kind: SecretType,
        /// Set for REFERENCE.
        pub reference: Option<SecretReference>,
        /// Set for VALUE.
        pub value: Option<SecretValue>,
    }
}

names! {
    /// What an environment variable holds.
    pub enum VariableType default Value {
        /// A text; also meant when the type is missing.
        Value = 1 "VALUE",
        /// A secret.
        Secret = 2 "SECRET",
    } else
    /// A kind this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// One environment variable.
    pub struct Variable {
        /// Its name.
        pub name: String,
        /// What it holds.
        #[serde(rename = "type")]
        pub kind: VariableType,
        /// Its text; set for VALUE.
        pub value: Option<String>,
        /// Its secret; set for SECRET.
        pub secret: Option<Secret>,
    }
}

impl Variable {
    /// A variable with a text.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: Some(value.into()),
            ..Self::default()
        }
    }
}

record! {
    /// Environment variables in the order given; a later one wins.
    pub struct Environment {
        /// The variables.
        pub variables: Vec<Variable>,
    }
}

record! {
    own Default;
    /// A file to fetch into the sandbox before a command starts.
    #[derive(Eq)]
    pub struct Uri {
        /// Where it is.
        pub value: String,
        /// Whether to make it executable, and then not unpack it.
        pub executable: bool,
        /// Whether to unpack an archive; true when missing.
        pub extract: bool,
        /// Whether the agent may keep a copy for later.
        pub cache: bool,
        /// Name in the sandbox, when not the last part of the address.
        pub output_file: Option<String>,
    }
}

impl Default for Uri {
    fn default() -> Self {
        Self {
            value: String::new(),
            executable: false,
            extract: true,
            cache: false,
            output_file: None,
        }
    }
}

record! {
    own Default;
    /// A program to run.
    pub struct CommandInfo {
        /// Files to fetch first.
        pub uris: Vec<Uri>,
        /// Environment variables of the program.
        pub environment: Option<Environment>,
        /// Whether `value` is a shell script for `sh -c`; true when missing. Otherwise it is a file to execute.
        pub shell: bool,
        /// The script or the file.
        pub value: Option<String>,
        /// Arguments of a file to execute, the first one being the name it sees as its own.
        pub arguments: Vec<String>,
        /// User to run as; the framework's when missing.
        pub user: Option<String>,
    }
}

impl Default for CommandInfo {
    fn default() -> Self {
        Self {
            uris: Vec::new(),
            environment: None,
            shell: true,
            value: None,
            arguments: Vec::new(),
            user: None,
        }
    }
}

impl CommandInfo {
    /// A script for `sh -c`.
    pub fn shell(script: impl Into<String>) -> Self {
        Self {
            value: Some(script.into()),
            ..Self::default()
        }
    }

    /// A file to execute with its arguments; the file stands before them as the name it sees as its own.
    pub fn exec<T: Into<String>>(
        file: impl Into<String>,
        arguments: impl IntoIterator<Item = T>,
    ) -> Self {
        let file = file.into();
        let mut all = vec![file.clone()];
        all.extend(arguments.into_iter().map(Into::into));
        Self {
            shell: false,
            value: Some(file),
            arguments: all,
            ..Self::default()
        }
    }

    /// The same with one more environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let environment = self.environment.get_or_insert_default();
        environment.variables.push(Variable::new(name, value));
        self
    }
}

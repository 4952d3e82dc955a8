//! Identifiers and roles, and the rules their texts keep.
//!
//! Pure. An identifier is a text that is cheap to clone; [`str::parse`] checks it, `new` does not, because what
//! comes off the wire must be representable before it can be rejected with a good message. On the wire an
//! identifier is its text; the object form `{"value": "…"}` is read too. Rules after Mesos
//! `src/common/validation.cpp` and `src/common/roles.cpp`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::Presence;

/// Longest identifier in bytes; it must fit a file name.
pub const MAX_ID_BYTES: usize = 255;

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("ID must not be empty")]
    Empty,
    /// The text has more than [`MAX_ID_BYTES`] bytes.
    #[error("ID must not be greater than {MAX_ID_BYTES} characters")]
    TooLong,
    /// The text is `.` or `..`, which name directories.
    #[error("'{0}' is disallowed")]
    Disallowed(String),
    /// The text holds a control character, `/` or `\`.
    #[error("'{0}' contains invalid characters")]
    InvalidCharacters(String),
}

/// Checks a text that becomes part of a path: task, executor, agent, framework and persistence ids.
///
/// # Errors
/// [`IdError`] with the text that the requester is told.
pub fn validate_id(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong);
    }
    if id == "." || id == ".." {
        return Err(IdError::Disallowed(id.to_owned()));
    }
    if id
        .chars()
        .any(|c| c.is_ascii_control() || c == '/' || c == '\\')
    {
        return Err(IdError::InvalidCharacters(id.to_owned()));
    }
    Ok(())
}

/// Reads a text, or a map whose `value` is the text.
struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or an object with a `value`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Arc::from(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut value = Arc::from("");
        while let Some(key) = map.next_key::<String>()? {
            if key == "value" {
                value = Arc::from(map.next_value::<String>()?);
            } else {
                map.next_value::<de::IgnoredAny>()?;
            }
        }
        Ok(value)
    }
}

macro_rules! text_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// This text, unchecked.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// True for the empty text, which stands for a missing identifier.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor).map(Self)
            }
        }

        impl Presence for $name {}
    };
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        text_type! { $(#[$meta])* $name }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                validate_id(text)?;
                Ok(Self::new(text))
            }
        }
    };
}

id! {
    /// Names one run of a master process; a new random text at every start.
    MasterId
}
id! {
    /// Names a framework: `<master id>-NNNN`, given by the master at the first subscription.
    FrameworkId
}
id! {
    /// Names an agent: `<master id>-S<n>`, given by the master that admitted it.
    AgentId
}
id! {
    /// Names an offer: `<master id>-O<n>`.
    OfferId
}
id! {
    /// Names a task; chosen by the framework, unique among its active tasks.
    TaskId
}
id! {
    /// Names an executor; chosen by the framework, unique per framework and agent.
    ExecutorId
}
id! {
    /// Names an operation for which the framework wants feedback; chosen by the framework.
    OperationId
}
id! {
    /// Names a persistent volume; chosen by its creator, unique per role and agent.
    PersistenceId
}
id! {
    /// Names a resource provider beside the agent itself.
    ResourceProviderId
}

text_type! {
    /// A role: `*`, or components separated by `/`, for example `eng/web`.
    ///
    /// `new` takes any text; [`validate_role`] and [`str::parse`] check it.
    Role
}

/// Names a container: a text of its own and, when it runs inside another container, the parent's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerId {
    /// A UUID text for top-level containers.
    pub value: String,
    /// The container this one is nested in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<ContainerId>>,
}

impl Presence for ContainerId {}

impl ContainerId {
    /// A top-level container.
    pub fn top(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            parent: None,
        }
    }

    /// A container inside this one.
    pub fn child(&self, value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            parent: Some(Box::new(self.clone())),
        }
    }

    /// The outermost container.
    pub fn root(&self) -> &Self {
        let mut at = self;
        while let Some(parent) = &at.parent {
            at = parent;
        }
        at
    }
}

/// From the outermost container inwards, separated by dots.
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(&self.value)
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parent: Option<Box<ContainerId>> = None;
        for value in text.split('.') {
            validate_id(value)?;
            parent = Some(Box::new(Self {
                value: value.to_owned(),
                parent,
            }));
        }
        parent.map(|id| *id).ok_or(IdError::Empty)
    }
}

/// Names one status update, one launch or one version of a provider's resources: a random UUID.
///
/// Sixteen bytes in MessagePack, hyphenated text in JSON.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpdateId(uuid::Uuid);

impl UpdateId {
    /// The id of these bytes. Callers draw them from their own random source.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// A version 4 UUID made from 16 random bytes.
    pub const fn from_random_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The sixteen bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for UpdateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for UpdateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpdateId({})", self.0)
    }
}

impl FromStr for UpdateId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Presence for UpdateId {}

impl Serialize for UpdateId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&self.0)
        } else {
            serializer.serialize_bytes(self.0.as_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for UpdateId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Uuid16;
        impl Visitor<'_> for Uuid16 {
            type Value = UpdateId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID: sixteen bytes or its text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<UpdateId, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<UpdateId, E> {
                uuid::Uuid::from_slice(bytes)
                    .map(UpdateId)
                    .map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Uuid16)
        } else {
            deserializer.deserialize_bytes(Uuid16)
        }
    }
}

/// Why a text cannot be a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// The text is empty.
    #[error("Role names cannot be the empty string")]
    Empty,
    /// The text begins with `/`.
    #[error("Role '{0}' cannot start with a slash")]
    LeadingSlash(String),
    /// The text ends with `/`.
    #[error("Role '{0}' cannot end with a slash")]
    TrailingSlash(String),
    /// The text holds `//`.
    #[error("Role '{0}' cannot contain two adjacent slashes")]
    AdjacentSlashes(String),
    /// A component is `.`, `..` or `*`.
    #[error("Role '{role}' cannot include '{component}' as a component")]
    ReservedComponent {
        /// The whole role.
        role: String,
        /// The component that is not allowed.
        component: String,
    },
    /// A component begins with `-`.
    #[error("Role component '{0}' is invalid because it starts with a dash")]
    LeadingDash(String),
    /// A component holds white space or a delete character.
    #[error("Role component '{0}' is invalid because it contains backspace or whitespace")]
    Whitespace(String),
}

/// Checks a role's text.
///
/// # Errors
/// [`RoleError`] with the text that the requester is told.
pub fn validate_role(role: &str) -> Result<(), RoleError> {
    if role == Role::DEFAULT {
        return Ok(());
    }
    if role.is_empty() {
        return Err(RoleError::Empty);
    }
    if role.starts_with('/') {
        return Err(RoleError::LeadingSlash(role.to_owned()));
    }
    if role.ends_with('/') {
        return Err(RoleError::TrailingSlash(role.to_owned()));
    }
    if role.contains("//") {
        return Err(RoleError::AdjacentSlashes(role.to_owned()));
    }
    for component in role.split('/') {
        if matches!(component, "." | ".." | "*") {
            return Err(RoleError::ReservedComponent {
                role: role.to_owned(),
                component: component.to_owned(),
            });
        }
        if component.starts_with('-') {
            return Err(RoleError::LeadingDash(component.to_owned()));
        }
        if component
            .bytes()
            .any(|b| matches!(b, 0x09..=0x0d | 0x20 | 0x7f))
        {
            return Err(RoleError::Whitespace(component.to_owned()));
        }
    }
    Ok(())
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        validate_role(text)?;
        Ok(Self::new(text))
    }
}

impl Role {
    /// Text of the role that everybody has and nobody can reserve for.
    pub const DEFAULT: &'static str = "*";

    /// The role `*`.
    pub fn star() -> Self {
        Self::new(Self::DEFAULT)
    }

    /// Whether this is the role `*`.
    pub fn is_star(&self) -> bool {
        self.as_str() == Self::DEFAULT
    }

    /// Whether this role lies below `other`: `a/b` is below `a`, but neither is below itself.
    pub fn is_strict_subrole_of(&self, other: &Self) -> bool {
        let (child, parent) = (self.as_str().as_bytes(), other.as_str().as_bytes());
        child.len() > parent.len() && child[parent.len()] == b'/' && child.starts_with(parent)
    }

    /// Whether this role is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self == other || self.is_strict_subrole_of(other)
    }

    /// The roles above this one, the nearest first: `a/b`, then `a`, for `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.as_str()
            .rmatch_indices('/')
            .map(|(at, _)| Self::new(&self.as_str()[..at]))
    }

    /// The role directly above; none for a top-level one.
    pub fn parent(&self) -> Option<Self> {
        self.ancestors().next()
    }

    /// The outermost role: `a` for `a/b/c`.
    pub fn top_level(&self) -> &str {
        self.components().next().unwrap_or_default()
    }

    /// The parts between the slashes.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/')
    }

    /// Whether the role has an ancestor.
    pub fn is_nested(&self) -> bool {
        self.as_str().contains('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_the_published_rules() {
        for good in ["t", "a b", "é", "a.b", "...", &"x".repeat(255)] {
            assert_eq!(validate_id(good), Ok(()), "{good}");
        }
        for (bad, text) in [
            ("", "ID must not be empty"),
            (
                &*"x".repeat(256),
                "ID must not be greater than 255 characters",
            ),
            (".", "'.' is disallowed"),
            ("..", "'..' is disallowed"),
            ("a/b", "'a/b' contains invalid characters"),
            ("a\\b", "'a\\b' contains invalid characters"),
            ("a\nb", "'a\nb' contains invalid characters"),
        ] {
            assert_eq!(validate_id(bad).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn roles_keep_the_published_rules() {
        for good in ["*", "a", "a/b/c", "a\\b", "a-b", "é", "..a"] {
            assert_eq!(validate_role(good), Ok(()), "{good}");
        }
        for (bad, text) in [
            ("", "Role names cannot be the empty string"),
            ("/a", "Role '/a' cannot start with a slash"),
            ("/", "Role '/' cannot start with a slash"),
            ("a/", "Role 'a/' cannot end with a slash"),
            ("a//b", "Role 'a//b' cannot contain two adjacent slashes"),
            ("a/../b", "Role 'a/../b' cannot include '..' as a component"),
            (".", "Role '.' cannot include '.' as a component"),
            ("a/*", "Role 'a/*' cannot include '*' as a component"),
            (
                "-a",
                "Role component '-a' is invalid because it starts with a dash",
            ),
            (
                "x/a b",
                "Role component 'a b' is invalid because it contains backspace or whitespace",
            ),
            (
                "a\u{7f}",
                "Role component 'a\u{7f}' is invalid because it contains backspace or whitespace",
            ),
        ] {
            assert_eq!(validate_role(bad).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn roles_know_their_place_in_the_tree() {
        let (a, ab, abc, ax) = (
            Role::from("a"),
            Role::from("a/b"),
            Role::from("a/b/c"),
            Role::from("ax"),
        );
        assert!(abc.is_strict_subrole_of(&a) && abc.is_strict_subrole_of(&ab));
        assert!(!a.is_strict_subrole_of(&a) && !ax.is_strict_subrole_of(&a));
        assert!(a.is_within(&a) && !a.is_within(&ab));
        assert_eq!(abc.ancestors().collect::<Vec<_>>(), [ab.clone(), a]);
        assert_eq!(abc.parent(), Some(ab));
        assert_eq!(abc.top_level(), "a");
        assert_eq!(abc.components().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn an_id_is_read_from_text_and_from_an_object() {
        let plain: TaskId = serde_json::from_str("\"t\"").unwrap();
        let object: TaskId = serde_json::from_str(r#"{"value":"t","other":[1]}"#).unwrap();
        assert_eq!(plain, object);
        assert_eq!(serde_json::to_string(&plain).unwrap(), "\"t\"");
    }

    #[test]
    fn a_container_prints_from_the_outside_in() {
        let id = ContainerId::top("a").child("b").child("c");
        assert_eq!(id.to_string(), "a.b.c");
        assert_eq!("a.b.c".parse(), Ok(id.clone()));
        assert_eq!(id.root(), &ContainerId::top("a"));
        assert!("a..c".parse::<ContainerId>().is_err());
    }

    #[test]
    fn an_update_id_is_sixteen_bytes_or_text() {
        let id = UpdateId::from_bytes([7; 16]);
        let bytes = rmp_serde::to_vec_named(&id).unwrap();
        assert_eq!(bytes.len(), 18);
        assert_eq!(rmp_serde::from_slice::<UpdateId>(&bytes).unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"07070707-0707-0707-0707-070707070707\"");
        assert_eq!(serde_json::from_str::<UpdateId>(&json).unwrap(), id);
    }
}

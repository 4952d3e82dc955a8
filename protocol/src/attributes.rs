//! Attributes: what an agent says about itself beyond its resources.
//!
//! Pure. Text form `name:value;name:value`, each split at its first colon; a value is a number, ranges or text.
//! Names may repeat. Source: Mesos `src/common/attributes.cpp`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::resources::{ParseError, Ranges, Scalar, ValueText, ValueType, parse_value};
use crate::wire::{Presence, record};

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A number.
    Scalar(Scalar),
    /// Intervals.
    Ranges(Ranges),
    /// A text.
    Text(Arc<str>),
    /// A kind of value this version does not know.
    Unknown,
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(amount) => amount.fmt(f),
            Self::Ranges(ranges) => ranges.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Unknown => Ok(()),
        }
    }
}

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.value)
    }
}

/// Why a text is not a list of attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// No colon.
    #[error("attribute '{0}' has no value: write name:value")]
    NoValue(String),
    /// Nothing before the colon.
    #[error("attribute '{0}' has no name: write name:value")]
    NoName(String),
    /// The value cannot be read.
    #[error("attribute '{name}' has a bad value: {error}")]
    BadValue {
        /// The attribute.
        name: String,
        /// What is wrong.
        #[source]
        error: ParseError,
    },
    /// Sets are not allowed.
    #[error("attribute '{0}' is a set: only numbers, [ranges] and text are attributes")]
    Set(String),
}

/// Reads attributes.
///
/// # Errors
/// [`AttributeError`], naming the attribute.
pub fn parse_attributes(text: &str) -> Result<Vec<Attribute>, AttributeError> {
    let parts = text.split(';').filter(|part| !part.trim().is_empty());
    parts.map(parse_attribute).collect()
}

fn parse_attribute(text: &str) -> Result<Attribute, AttributeError> {
    let text = text.trim();
    let no_value = || AttributeError::NoValue(text.to_owned());
    let (name, value) = text.split_once(':').ok_or_else(no_value)?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return Err(AttributeError::NoName(text.to_owned()));
    }
    if value.is_empty() {
        return Err(no_value());
    }
    let bad = |error| AttributeError::BadValue {
        name: name.to_owned(),
        error,
    };
    let value = match parse_value(value).map_err(bad)? {
        ValueText::Scalar(amount) => AttributeValue::Scalar(amount),
        ValueText::Ranges(ranges) => AttributeValue::Ranges(ranges),
        ValueText::Text(text) => AttributeValue::Text(text),
        ValueText::Set(_) => return Err(AttributeError::Set(name.to_owned())),
    };
    Ok(Attribute {
        name: name.to_owned(),
        value,
    })
}

record! {
    #[derive(Copy)]
    struct RawScalar {
        value: Scalar,
    }
}

record! {
    #[derive(Copy)]
    struct RawRange {
        begin: u64,
        end: u64,
    }
}

record! {
    struct RawRanges {
        range: Vec<RawRange>,
    }
}

record! {
    struct RawText {
        value: Arc<str>,
    }
}

record! {
    struct RawAttribute {
        name: String,
        #[serde(rename = "type")]
        kind: ValueType,
        scalar: Option<RawScalar>,
        ranges: Option<RawRanges>,
        text: Option<RawText>,
    }
}

impl Serialize for Attribute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = RawAttribute {
            name: self.name.clone(),
            ..RawAttribute::default()
        };
        match &self.value {
            AttributeValue::Scalar(value) => {
                raw.kind = ValueType::Scalar;
                raw.scalar = Some(RawScalar { value: *value });
            }
            AttributeValue::Ranges(ranges) => {
                raw.kind = ValueType::Ranges;
                let range = ranges.as_slice().iter().map(|range| RawRange {
                    begin: range.begin,
                    end: range.end,
                });
                raw.ranges = Some(RawRanges {
                    range: range.collect(),
                });
            }
            AttributeValue::Text(value) => {
                raw.kind = ValueType::Text;
                raw.text = Some(RawText {
                    value: value.clone(),
                });
            }
            AttributeValue::Unknown => {}
        }
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawAttribute::deserialize(deserializer)?;
        let value = match (raw.kind, raw.scalar, raw.ranges, raw.text) {
            (ValueType::Scalar, Some(scalar), ..) => AttributeValue::Scalar(scalar.value),
            (ValueType::Ranges, _, Some(ranges), _) => {
                let intervals = ranges.range.iter().map(|range| (range.begin, range.end));
                AttributeValue::Ranges(Ranges::new(intervals))
            }
            (ValueType::Text, _, _, Some(text)) => AttributeValue::Text(text.value),
            _ => AttributeValue::Unknown,
        };
        Ok(Self {
            name: raw.name,
            value,
        })
    }
}

impl Presence for Attribute {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_ranges_and_text() {
        let text = "rack:abc;zone:west;level:10;keys:[1000-1500];url:http://x:1";
        let attributes = parse_attributes(text).unwrap();
        let printed: Vec<String> = attributes.iter().map(ToString::to_string).collect();
        assert_eq!(printed.join(";"), text);
        assert_eq!(
            attributes[2].value,
            AttributeValue::Scalar(Scalar::whole(10))
        );
        let json = serde_json::to_string(&attributes).unwrap();
        assert!(json.starts_with(r#"[{"name":"rack","type":"TEXT","text":{"value":"abc"}}"#));
        assert_eq!(
            serde_json::from_str::<Vec<Attribute>>(&json).unwrap(),
            attributes
        );
    }

    #[test]
    fn errors_name_the_attribute() {
        for (text, part) in [
            ("a:1;rack", "'rack' has no value"),
            ("rack:", "'rack:' has no value"),
            (":x", "':x' has no name"),
            ("disks:{a,b}", "'disks' is a set"),
            ("keys:[1-", "'keys' has a bad value"),
        ] {
            let error = parse_attributes(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_kind_from_the_future_is_kept_as_unknown() {
        let json = r#"{"name":"x","type":"TENSOR","tensor":[1]}"#;
        let attribute: Attribute = serde_json::from_str(json).unwrap();
        assert_eq!(attribute.value, AttributeValue::Unknown);
    }
}

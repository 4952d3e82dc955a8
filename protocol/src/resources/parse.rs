//! The text and JSON forms of resources, as flags and attributes give them.
//!
//! Pure: a value that names a file is the caller's to read.
//!
//! ```text
//! resources = resource { ";" resource }       resource = name [ "(" role ")" ] ":" value
//! value     = 1.5 | [1-2, 5-9] | {a, b}       spaces do not count
//! ```
//! A role other than `*` means a static reservation. Source: Mesos `src/common/{resources,values}.cpp`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use super::{
    InvalidResource, Ranges, Reservation, Resource, ResourceError, ResourceQuantities, Resources,
    Scalar, Set, Value,
};
use crate::ids::{Role, RoleError, validate_role};

/// A value in its text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueText {
    /// A number.
    Scalar(Scalar),
    /// Intervals.
    Ranges(Ranges),
    /// Names.
    Set(Set),
    /// Any other text.
    Text(Arc<str>),
}

/// Why a text is not a list of resources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not exactly one `:`.
    #[error("Bad value for resources, missing or extra ':' in {0}")]
    Colon(String),
    /// A role without its closing bracket.
    #[error("Bad value for resources, mismatched parentheses in {0}")]
    Parentheses(String),
    /// A role that is none.
    #[error("Bad role in resources, '{text}': {error}")]
    Role {
        /// The resource as written.
        text: String,
        /// What is wrong with its role.
        #[source]
        error: RoleError,
    },
    /// Brackets that do not match.
    #[error("Failed to parse value '{0}': mismatched brackets")]
    Brackets(String),
    /// An interval that is not `begin-end`.
    #[error("Failed to parse value '{0}': expecting ranges like [1-2, 5-9]")]
    Range(String),
    /// A negative number, infinity and the like, or plain text.
    #[error(
        "Bad type for resource {name} value {value}: expecting a number >= 0, [ranges] or {{items}}"
    )]
    NotAResource {
        /// Name of the resource.
        name: String,
        /// Its value as written.
        value: String,
    },
    /// A number that no amount can be.
    #[error("resource {name} value {value} is more than {most}: check its unit and number", most = Scalar::MOST)]
    TooMuch {
        /// Name of the resource.
        name: String,
        /// Its value as written.
        value: String,
    },
    /// One name with two kinds of value.
    #[error("Resources with the same name ('{0}') but different types are not allowed")]
    TwoTypes(String),
    /// Something that a flag cannot give.
    #[error("{what} cannot be specified in a resources flag: {resource}")]
    NotAllowed {
        /// What it is: persistent volumes, revocable resources or dynamic reservations.
        what: &'static str,
        /// The resource, printed.
        resource: String,
    },
    /// The text is a JSON array, but not of resources.
    #[error("Bad resources in JSON: {0}")]
    Json(String),
    /// A resource that makes no sense by itself.
    #[error(transparent)]
    Invalid(#[from] InvalidResource),
}

/// Reads one value. Text that is neither number, ranges nor set is [`ValueText::Text`].
///
/// # Errors
/// Brackets that do not match and intervals that are not `begin-end`.
pub fn parse_value(text: &str) -> Result<ValueText, ParseError> {
    let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let brackets = || ParseError::Brackets(text.to_owned());
    let inside = |open, close| {
        let inner = squeezed
            .strip_prefix(open)
            .and_then(|t| t.strip_suffix(close));
        inner.filter(|t| !t.contains(['[', ']', '{', '}', '(', ')']))
    };
    match squeezed.chars().next() {
        Some('[') => {
            let inner = inside('[', ']').ok_or_else(brackets)?;
            let range = || ParseError::Range(text.to_owned());
            let mut intervals = Vec::new();
            for part in inner.split(',').filter(|part| !part.is_empty()) {
                let (begin, end) = part.split_once('-').ok_or_else(range)?;
                let begin: u64 = begin.parse().map_err(|_| range())?;
                let end: u64 = end.parse().map_err(|_| range())?;
                if begin > end {
                    return Err(range());
                }
                intervals.push((begin, end));
            }
            Ok(ValueText::Ranges(Ranges::new(intervals)))
        }
        Some('{') => {
            let inner = inside('{', '}').ok_or_else(brackets)?;
            let items = inner.split(',').filter(|item| !item.is_empty());
            Ok(ValueText::Set(Set::new(items)))
        }
        _ if squeezed.contains(['[', ']', '{', '}']) => Err(brackets()),
        _ => {
            let number = squeezed.parse::<f64>().ok();
            // Not a number, infinite, negative and subnormal values are plain text, and so is what no scalar can hold.
            let number = number.filter(|n| (n.is_normal() || *n == 0.0) && *n >= 0.0);
            let amount = number.and_then(Scalar::from_f64);
            Ok(match amount.filter(|amount| *amount != Scalar::INFINITE) {
                Some(amount) => ValueText::Scalar(amount),
                None => ValueText::Text(Arc::from(text.trim())),
            })
        }
    }
}

/// Whether a text that is no amount is a number all the same, written in digits.
fn is_too_much(text: &str) -> bool {
    let number = text.parse::<f64>();
    text.starts_with(|c: char| c.is_ascii_digit()) && number.is_ok_and(|number| number > 1.0)
}

fn parse_one(text: &str, default_role: &Role) -> Result<Resource, ParseError> {
    let colon = || ParseError::Colon(text.to_owned());
    let (head, value) = text.split_once(':').ok_or_else(colon)?;
    if value.contains(':') {
        return Err(colon());
    }
    let head = head.trim();
    let (name, role) = match head.split_once('(') {
        None if head.contains(')') => return Err(ParseError::Parentheses(text.to_owned())),
        None => (head, default_role.clone()),
        Some((name, rest)) => {
            let role = rest.trim_end().strip_suffix(')');
            let role = role.filter(|role| !role.contains(['(', ')']));
            let role = role.ok_or_else(|| ParseError::Parentheses(text.to_owned()))?;
            (name.trim_end(), Role::new(role.trim()))
        }
    };
    let value = match parse_value(value)? {
        ValueText::Scalar(amount) => Value::Scalar(amount),
        ValueText::Ranges(ranges) => Value::Ranges(ranges),
        ValueText::Set(set) => Value::Set(set),
        ValueText::Text(value) => {
            let (name, value) = (name.to_owned(), value.to_string());
            return Err(if is_too_much(&value) {
                ParseError::TooMuch { name, value }
            } else {
                ParseError::NotAResource { name, value }
            });
        }
    };
    let error = |error| ParseError::Role {
        text: text.to_owned(),
        error,
    };
    validate_role(role.as_str()).map_err(error)?;
    let resource = Resource::new(name, value);
    if role.is_star() {
        Ok(resource)
    } else {
        Ok(resource.reserved_by(Reservation::fixed(role)))
    }
}

fn check(resources: &[Resource]) -> Result<(), ParseError> {
    // The first value of each name, and the sum of its amounts.
    let mut names: BTreeMap<&str, (&Value, Scalar)> = BTreeMap::new();
    for resource in resources {
        let invalid = |error| InvalidResource {
            resource: resource.to_string(),
            error,
        };
        resource.validate().map_err(invalid)?;
        let what = if resource.is_persistent_volume() {
            Some("Persistent volumes")
        } else if resource.revocable {
            Some("Revocable resources")
        } else if resource.is_dynamically_reserved() {
            Some("Dynamic reservations")
        } else {
            None
        };
        if let Some(what) = what {
            return Err(ParseError::NotAllowed {
                what,
                resource: resource.to_string(),
            });
        }
        let first = (&resource.value, Scalar::ZERO);
        let (value, sum) = names.entry(&resource.name).or_insert(first);
        if !value.same_kind(&resource.value) {
            return Err(ParseError::TwoTypes(resource.name.to_string()));
        }
        *sum += resource.amount().unwrap_or_default();
        if *sum > Scalar::MOST {
            return Err(invalid(ResourceError::TooMuch(resource.name.to_string())).into());
        }
    }
    Ok(())
}

impl Resources {
    /// Reads what a `--resources` flag holds: the text form, or a JSON array of resources. Resources without a role
    /// get `default_role`. Equal entries are summed.
    ///
    /// # Errors
    /// What is wrong with the first bad entry, or that flags cannot give such a resource.
    pub fn parse_flag(text: &str, default_role: &Role) -> Result<Self, ParseError> {
        let resources = parse_list(text, default_role)?;
        check(&resources)?;
        Ok(resources.into_iter().collect())
    }

    /// Like [`Self::parse_flag`], but keeps resources of which there is nothing: `gpus:0` says that there are none,
    /// while not to mention a name leaves it to be found out.
    ///
    /// # Errors
    /// As for [`Self::parse_flag`].
    pub fn parse_flag_entries(
        text: &str,
        default_role: &Role,
    ) -> Result<Vec<Resource>, ParseError> {
        let resources = parse_list(text, default_role)?;
        check(&resources)?;
        Ok(resources)
    }
}

fn parse_list(text: &str, default_role: &Role) -> Result<Vec<Resource>, ParseError> {
    if text.trim_start().starts_with('[') {
        let mut resources: Vec<Resource> =
            serde_json::from_str(text).map_err(|error| ParseError::Json(error.to_string()))?;
        if !default_role.is_star() {
            // An entry that says `"role": "*"` has a role; one without any takes the default.
            let entries: Vec<serde_json::Value> =
                serde_json::from_str(text).map_err(|error| ParseError::Json(error.to_string()))?;
            for (resource, entry) in resources.iter_mut().zip(entries) {
                if resource.is_unreserved() && entry.get("role").is_none() {
                    *resource = resource
                        .clone()
                        .reserved_by(Reservation::fixed(default_role.clone()));
                }
            }
        }
        return Ok(resources);
    }
    text.split(';')
        .filter(|part| !part.trim().is_empty())
        .map(|part| parse_one(part, default_role))
        .collect()
}

impl FromStr for Resources {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_flag(text, &Role::star())
    }
}

/// Reads quantities: `cpus:1;mem:64`. Only numbers are taken; equal names are summed.
///
/// # Errors
/// What is wrong with the first bad entry.
pub fn parse_quantities(text: &str) -> Result<ResourceQuantities, ParseError> {
    let resources = parse_list(text, &Role::star())?;
    check(&resources)?;
    let mut out = ResourceQuantities::new();
    for resource in resources {
        match (resource.amount(), resource.is_unreserved()) {
            (Some(amount), true) => out.add_amount(&resource.name, amount),
            _ => {
                return Err(ParseError::NotAResource {
                    name: resource.name.to_string(),
                    value: resource.value.to_string(),
                });
            }
        }
    }
    Ok(out)
}

impl FromStr for ResourceQuantities {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_quantities(text)
    }
}

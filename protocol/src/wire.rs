//! How records and enumerations cross the wire.
//!
//! Pure. `record!` declares a struct whose optional and repeated fields are left out when empty and take their
//! default when missing; `names!` declares an enumeration that travels by name and survives names it does not know.
//! The rules assume a self-describing encoding: JSON, or MessagePack with field names.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether a field's value says nothing and can stay off the wire.
///
/// Only options, lists and maps can be absent; a number, text, flag or record is always written, so a reader of the
/// JSON form finds every required field.
pub trait Presence {
    /// True when the field may be left out.
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T> Presence for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Presence for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Presence for BTreeMap<K, V> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: ?Sized> Presence for Arc<T> {}
impl Presence for bool {}
impl Presence for i32 {}
impl Presence for u16 {}
impl Presence for u32 {}
impl Presence for i64 {}
impl Presence for u64 {}
impl Presence for f64 {}
impl Presence for String {}
impl Presence for serde_bytes::ByteBuf {}

/// Declares a wire record: a struct of public fields, all tolerant of absence.
///
/// `record! { own Default; … }` leaves `Default` to be written by hand, for records whose missing fields do not
/// mean zero.
macro_rules! record {
    (own Default; $(#[$meta:meta])* $vis:vis struct $name:ident {
        $( $(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty ),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        $vis struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::wire::Presence::is_absent")]
                $field_vis $field: $ty,
            )*
        }
        impl $crate::wire::Presence for $name {}
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident $body:tt) => {
        $crate::wire::record! {
            own Default;
            $(#[$meta])*
            #[derive(Default)]
            $vis struct $name $body
        }
    };
}
pub(crate) use record;

/// Declares an enumeration that travels by name.
///
/// Each variant has its number in the Mesos protocol, its wire name, and older names that are also read. The
/// variant after `else` stands for every name this version does not know.
macro_rules! names {
    ($(#[$meta:meta])* pub enum $name:ident default $default:ident {
        $( $(#[$variant_meta:meta])* $variant:ident = $number:literal $text:literal $(| $alias:literal)* ),* $(,)?
    } else $(#[$else_meta:meta])* $unknown:ident = $unknown_number:literal $unknown_text:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
            $(#[$else_meta])*
            $unknown,
        }

        impl $name {
            /// Every value that has a name of its own.
            pub const ALL: &'static [Self] = &[ $( Self::$variant ),* ];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $text, )*
                    Self::$unknown => $unknown_text,
                }
            }

            /// The value of this name; any other name gives the variant for unknown ones.
            pub fn from_name(name: &str) -> Self {
                match name {
                    $( $text $(| $alias)* => Self::$variant, )*
                    _ => Self::$unknown,
                }
            }

            /// The number in the Mesos protocol.
            pub const fn number(self) -> i32 {
                match self {
                    $( Self::$variant => $number, )*
                    Self::$unknown => $unknown_number,
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::$default
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Ok(Self::from_name(&name))
            }
        }

        impl $crate::wire::Presence for $name {}
    };
}
pub(crate) use names;

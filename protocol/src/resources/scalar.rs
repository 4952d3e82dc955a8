//! Amounts: fixed-point numbers with three decimals.
//!
//! Pure. A scalar is a count of thousandths in an `i64`, so sums are exact and do not depend on their order. It
//! travels as the decimal number people write. Source: Mesos `src/common/values.cpp`.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::Presence;

/// An amount in thousandths; 1.5 cpus is `Scalar::from_thousandths(1500)`.
///
/// Arithmetic saturates at the ends of the range instead of wrapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar(i64);

impl Scalar {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// No bound; only limits use it.
    pub const INFINITE: Self = Self(i64::MAX);

    /// The most there can be of one resource: 10^12, which as mem or disk is an exbibyte. More is a slip of the pen, and
    /// sums of amounts up to it stay far from the end of the range.
    pub const MOST: Self = Self::whole(1_000_000_000_000);

    /// `n` thousandths.
    pub const fn from_thousandths(n: i64) -> Self {
        Self(n)
    }

    /// The whole number `n`.
    pub const fn whole(n: i64) -> Self {
        Self(n.saturating_mul(1000))
    }

    /// The amount nearest to `value`, halves away from zero; none for not-a-number. Infinity is [`Self::INFINITE`].
    pub fn from_f64(value: f64) -> Option<Self> {
        if value.is_nan() {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates at the range of i64, which is what an amount beyond it means"
        )]
        let thousandths = (value * 1000.0).round() as i64;
        Some(Self(thousandths))
    }

    /// The number of thousandths.
    pub const fn thousandths(self) -> i64 {
        self.0
    }

    /// The amount as a floating-point number, for the wire, for printing and for ratios.
    pub fn as_f64(self) -> f64 {
        if self == Self::INFINITE {
            f64::INFINITY
        } else {
            self.0 as f64 / 1000.0
        }
    }

    /// Whether the amount is a whole number.
    pub const fn is_whole(self) -> bool {
        self.0 % 1000 == 0
    }

    /// Whether the amount is greater than nothing.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// The difference, but never less than nothing.
    #[must_use]
    pub fn minus_down_to_zero(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }
}

impl Add for Scalar {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Scalar {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Scalar {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Scalar {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Scalar {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// As few digits as needed: `1`, `0.5`, `1.512`.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::INFINITE {
            return f.write_str("inf");
        }
        let magnitude = self.0.unsigned_abs();
        let (whole, fraction) = (magnitude / 1000, magnitude % 1000);
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if fraction != 0 {
            let digits = format!("{fraction:03}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

impl Presence for Scalar {}

/// On the wire a number; infinity, which JSON cannot hold, is the text `Infinity` there.
impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::INFINITE && serializer.is_human_readable() {
            serializer.serialize_str("Infinity")
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Scalar::from_f64(value).ok_or_else(|| E::custom("an amount cannot be NaN"))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::whole(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::whole(i64::try_from(value).unwrap_or(i64::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                let value: f64 = text.parse().map_err(E::custom)?;
                self.visit_f64(value)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_few_digits_as_needed() {
        for (value, text) in [
            (1.0, "1"),
            (0.5, "0.5"),
            (1.5123, "1.512"),
            (0.05, "0.05"),
            (-0.25, "-0.25"),
            (0.0004, "0"),
            (1024.0, "1024"),
        ] {
            assert_eq!(Scalar::from_f64(value).unwrap().to_string(), text);
        }
        assert_eq!(Scalar::from_f64(f64::NAN), None);
    }

    #[test]
    fn sums_are_exact() {
        let tenth = Scalar::from_f64(0.1).unwrap();
        assert_eq!((0..10).map(|_| tenth).sum::<Scalar>(), Scalar::whole(1));
    }

    #[test]
    fn infinity_survives_both_encodings() {
        let json = serde_json::to_string(&Scalar::INFINITE).unwrap();
        assert_eq!(
            serde_json::from_str::<Scalar>(&json).unwrap(),
            Scalar::INFINITE
        );
        let bytes = rmp_serde::to_vec_named(&Scalar::INFINITE).unwrap();
        assert_eq!(
            rmp_serde::from_slice::<Scalar>(&bytes).unwrap(),
            Scalar::INFINITE
        );
        assert_eq!(
            serde_json::from_str::<Scalar>("2").unwrap(),
            Scalar::whole(2)
        );
    }
}

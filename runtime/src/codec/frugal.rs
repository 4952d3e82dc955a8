//! Decoding under a budget: a body may not grow into many times its own size.
//!
//! Pure. A few bytes can announce a list of four thousand million elements, and one byte can be a record of hundreds
//! with all fields at their defaults. Whoever decodes such a body must not pay for it: an announced length is
//! never believed, and every record, element and text that really comes is charged to a budget that the body's
//! length pays for. The charges are what the values take up in memory, so the budget bounds that too.
//!
//! `Frugal` stands between a type's `Deserialize` and the format, passes everything through, and keeps the account.

use std::cell::Cell;
use std::fmt;
use std::mem::size_of;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// What each byte of a body pays for, in bytes of memory. Records have fields that need not be on the wire, so the
/// leanest sensible ones take up twenty times their bodies, ordinary ones five times.
pub const EXPANSION: usize = 24;
/// What every body may take up whatever its length, in bytes.
pub const ALLOWANCE: usize = 24 << 10;
/// Charged for each text or blob that is not empty, for the room it has besides its length.
const TEXT: usize = 24;
/// Values from this size on are charged when they are made, smaller ones as elements of a list.
const SMALL: usize = 64;
/// A list makes room for as many elements as the budget has for values of this size, in bytes, and then grows as they
/// come. So lists of large records seldom move.
const LARGE: usize = 1024;
/// Elements below this size are charged for the room that a growing list holds in vain: as often as this says. Small
/// ones are not: a list of numbers, short texts or empty lists is what it is, and its bytes pay for it.
const MOVING: (usize, usize) = (512, 3);
/// A map's first entry makes room for this many.
const FIRST_ENTRY: usize = 12;

/// Charge for a value of this size, which is not small, that a list or a record holds.
const fn price(size: usize) -> usize {
    if size < MOVING.0 {
        size * MOVING.1
    } else {
        size
    }
}

/// What is left of a body's budget.
#[derive(Debug)]
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub(super) fn of(body: usize) -> Self {
        let all = body.saturating_mul(EXPANSION).saturating_add(ALLOWANCE);
        Self(Cell::new(all))
    }

    fn charge<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.0.get().checked_sub(bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(E::custom(
                "the message would take up many times its own size in memory",
            )),
        }
    }

    /// Charges for a value that is large enough to count by itself.
    fn made<T, E: Error>(&self) -> Result<(), E> {
        let size = size_of::<T>();
        if size < SMALL {
            return Ok(());
        }
        self.charge(price(size))
    }

    /// How many of the announced elements may be made room for before they come.
    fn believe(&self, announced: Option<usize>) -> Option<usize> {
        announced.map(|announced| announced.min(self.0.get() / LARGE))
    }
}

/// A deserializer that keeps the account of another one.
pub(super) struct Frugal<'b, D> {
    pub(super) inner: D,
    pub(super) budget: &'b Budget,
}

/// A visitor, seed or access that hands the account on.
struct Watched<'b, T> {
    inner: T,
    budget: &'b Budget,
    /// Of a map: size of the key whose value comes next. Zero in a record, whose fields are charged with it.
    entry: Option<usize>,
    first: bool,
}

impl<'b, T> Watched<'b, T> {
    fn new(inner: T, budget: &'b Budget) -> Self {
        Self {
            inner,
            budget,
            entry: None,
            first: true,
        }
    }

    /// For a map proper, whose entries are charged.
    fn map(inner: T, budget: &'b Budget) -> Self {
        Self {
            entry: Some(0),
            ..Self::new(inner, budget)
        }
    }
}

macro_rules! pass {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(Watched::new(visitor, self.budget))
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Frugal<'_, D> {
    type Error = D::Error;

    pass! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.budget.made::<V::Value, _>()?;
        self.inner
            .deserialize_any(Watched::map(visitor, self.budget))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner
            .deserialize_map(Watched::map(visitor, self.budget))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Watched::new(visitor, self.budget);
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.budget.made::<V::Value, _>()?;
        let visitor = Watched::new(visitor, self.budget);
        self.inner.deserialize_tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.budget.made::<V::Value, _>()?;
        let visitor = Watched::new(visitor, self.budget);
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.budget.made::<V::Value, _>()?;
        let visitor = Watched::new(visitor, self.budget);
        self.inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.budget.made::<V::Value, _>()?;
        let visitor = Watched::new(visitor, self.budget);
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident $ty:ty),* $(,)?) => { $(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )* };
}
macro_rules! visit_text {
    ($($method:ident $ty:ty),* $(,)?) => { $(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            if !value.is_empty() {
                self.budget.charge(TEXT)?;
            }
            self.inner.$method(value)
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watched<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    visit! {
        visit_bool bool, visit_i8 i8, visit_i16 i16, visit_i32 i32, visit_i64 i64, visit_i128 i128,
        visit_u8 u8, visit_u16 u16, visit_u32 u32, visit_u64 u64, visit_u128 u128,
        visit_f32 f32, visit_f64 f64, visit_char char,
    }
    visit_text! {
        visit_str &str, visit_borrowed_str &'de str, visit_string String,
        visit_bytes &[u8], visit_borrowed_bytes &'de [u8], visit_byte_buf Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let budget = self.budget;
        self.inner.visit_some(Frugal { inner, budget })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let budget = self.budget;
        self.inner.visit_newtype_struct(Frugal { inner, budget })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Watched::new(list, self.budget))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let map = Watched {
            inner: map,
            budget: self.budget,
            entry: self.entry,
            first: true,
        };
        self.inner.visit_map(map)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, choice: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Watched::new(choice, self.budget))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Watched<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let budget = self.budget;
        self.inner.deserialize(Frugal { inner, budget })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Watched<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let next = self
            .inner
            .next_element_seed(Watched::new(seed, self.budget))?;
        let size = size_of::<S::Value>();
        if next.is_some() && size < SMALL {
            self.budget.charge(size)?;
        }
        Ok(next)
    }

    fn size_hint(&self) -> Option<usize> {
        self.budget.believe(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Watched<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        if let Some(key) = &mut self.entry {
            *key = size_of::<S::Value>();
        }
        self.inner.next_key_seed(Watched::new(seed, self.budget))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if let Some(key) = self.entry {
            let entries = if self.first { FIRST_ENTRY } else { 2 };
            self.first = false;
            self.budget
                .charge(entries * (key + size_of::<S::Value>()))?;
        }
        self.inner.next_value_seed(Watched::new(seed, self.budget))
    }

    fn size_hint(&self) -> Option<usize> {
        self.budget.believe(self.inner.size_hint())
    }
}

impl<'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Watched<'b, A> {
    type Error = A::Error;
    type Variant = Watched<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Watched::new(variant, self.budget)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Watched<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner
            .newtype_variant_seed(Watched::new(seed, self.budget))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = Watched::new(visitor, self.budget);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = Watched::new(visitor, self.budget);
        self.inner.struct_variant(fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::codec::{decode_body, encode_body};

    fn passes<T: Serialize + DeserializeOwned>(list: Vec<T>) -> bool {
        let body = encode_body(&list).unwrap();
        decode_body::<Vec<T>>(&body).is_ok_and(|back| back.len() == list.len())
    }

    #[test]
    fn long_lists_of_small_values_pass() {
        const MANY: usize = 100_000;
        assert!(passes(vec![1_u8; MANY]));
        assert!(passes(vec![None::<u64>; MANY]));
        assert!(passes(vec![Vec::<u64>::new(); MANY]));
        assert!(passes(vec![String::new(); MANY]));
        assert!(passes(vec!["a".to_owned(); MANY]));
        assert!(passes(vec![("a".to_owned(), 1_u64); MANY]));
    }

    #[test]
    fn a_list_of_large_records_with_all_fields_missing_does_not_pass() {
        #[derive(serde::Deserialize)]
        struct Lean {
            #[serde(default)]
            _all: [u64; 32],
        }
        let mut body = vec![0xdc, 0x03, 0xe8];
        body.resize(body.len() + 1_000, 0x80);
        assert!(decode_body::<Vec<Lean>>(&body).is_err());
    }
}

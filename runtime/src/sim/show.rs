//! Any MessagePack body as a tree of values, for a story.
//!
//! Pure. JSON knows no bytes, which are shown in hexadecimal here, and those of a UUID as one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// See the module.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Value);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if bytes.len() == 16 && matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Shown;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "anything")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Shown, E> {
        Ok(Shown(hexadecimal(value).into()))
    }

    fn visit_unit<E>(self) -> Result<Shown, E> {
        Ok(Shown(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Shown, A::Error> {
        let mut values = Vec::new();
        while let Some(Shown(value)) = all.next_element()? {
            values.push(value);
        }
        Ok(Shown(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Shown, A::Error> {
        let mut values = Map::new();
        while let Some((Shown(key), Shown(value))) = all.next_entry()? {
            let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            values.insert(key, value);
        }
        Ok(Shown(Value::Object(values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;
    use serde_bytes::ByteBuf;
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    struct Body {
        uuid: ByteBuf,
        data: ByteBuf,
        counts: BTreeMap<u8, i8>,
        none: Option<bool>,
        share: f64,
        words: Vec<&'static str>,
    }

    #[test]
    fn bytes_and_keys_that_are_no_text_are_shown_too() {
        let body = Body {
            uuid: ByteBuf::from([0xab; 16]),
            data: ByteBuf::from([1, 2]),
            counts: BTreeMap::from([(7, -7)]),
            none: None,
            share: 0.5,
            words: vec!["a"],
        };
        let bytes = rmp_serde::to_vec_named(&body).unwrap();
        let Shown(value) = crate::message::read_named(&bytes).unwrap();
        assert_eq!(
            value.to_string(),
            concat!(
                r#"{"counts":{"7":-7},"data":"0102","none":null,"share":0.5,"#,
                r#""uuid":"abababab-abab-abab-abab-abababababab","words":["a"]}"#
            )
        );
    }
}

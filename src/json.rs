//! Strict JSON: rejects duplicate keys, deep nesting and trailing data. Gives values no meaning.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What the error says of text that is nested deeper than allowed.
pub(crate) const TOO_DEEP: &str = "nested too deeply";

/// Parses `text` (UTF-8) as one JSON value (RFC 8259), nested at most `max_depth` deep.
///
/// # Errors
/// The problem with its line and column: invalid syntax, a duplicate key, a number out of range, or
/// the depth.
pub(crate) fn parse(text: &[u8], max_depth: usize) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict {
        depth_left: max_depth,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth_left: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth_left = self
            .depth_left
            .checked_sub(1)
            .ok_or_else(|| E::custom(TOO_DEEP))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let element = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(element)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let member = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom("a key stands twice in one object"));
            }
            members.insert(name, map.next_value_seed(member)?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preserves_values() {
        let text = br#"{"a":[1,-2,1.5,"x",null,true],"b":{"c":"\u00e9"}}"#;
        let expected: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(parse(text, 4).unwrap(), expected);
    }

    #[test]
    fn rejects_lenient_json() {
        for (text, complaint) in [
            (&br#"{"a":1,"a":1}"#[..], "a key stands twice"),
            (br#"{"a":{"b":1,"\u0062":2}}"#, "a key stands twice"),
            (b"[[[[[1]]]]]", "nested too deeply"),
            (b"1e400", "number out of range"),
            (b"{} {}", "trailing characters"),
            (b"\"\xff\"", "invalid unicode"),
            (b"", "EOF"),
        ] {
            let found = parse(text, 4).unwrap_err().to_string();
            assert!(
                found.contains(complaint),
                "{found} for {}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn counts_depth_in_arrays_and_objects() {
        assert!(parse(b"[[[[1]]]]", 4).is_ok());
        assert!(parse(br#"{"a":[{"b":[]}]}"#, 4).is_ok());
    }
}

//! Merges configurations, for the scenarios and their fuzzers. Reads no files.

use serde_json::Value;

/// Applies the merge patch `over` to `onto` (RFC 7396).
pub(crate) fn merge(onto: &mut Value, over: Value) {
    match (onto, over) {
        (Value::Object(onto), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    onto.remove(&name);
                } else {
                    merge(onto.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (onto, over) => *onto = over,
    }
}

//! One configuration over another, for the scenarios and for the fuzzers that begin with them.
//! Reads no files.

use serde_json::Value;

/// Changes `onto` as the merge patch `over` says: RFC 7396.
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

//! Visits every value of a document.

use serde_json::Value;

/// Whether `holds` is true for the path of any scalar in `value`.
pub(crate) fn any(value: &Value, holds: &dyn Fn(&str, &Value) -> bool) -> bool {
    first(value, "", holds).is_some()
}

/// The path and the value of the first scalar in `value`, at `path`, for which `holds` is true.
pub(crate) fn first<'v>(
    value: &'v Value,
    path: &str,
    holds: &dyn Fn(&str, &Value) -> bool,
) -> Option<(String, &'v Value)> {
    match value {
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .find_map(|(position, element)| first(element, &format!("{path}[{position}]"), holds)),
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            first(member, &path, holds)
        }),
        scalar => holds(path, scalar).then(|| (path.to_owned(), scalar)),
    }
}

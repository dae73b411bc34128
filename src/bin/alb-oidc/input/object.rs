//! A Kubernetes resource with the line of each field. Knows no kind.

use serde_json::Value;

use super::node::{Lines, Node};

/// A Kubernetes resource.
pub(crate) struct Object {
    /// The file's name.
    pub(crate) file: String,
    pub(crate) kind: String,
    /// Empty if the resource names none.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The whole resource.
    pub(crate) value: Value,
    lines: Lines,
}

impl Object {
    pub(super) fn new(file: &str, kind: &str, document: &Node) -> Self {
        let text = |name| {
            let text = document.text(&["metadata", name]);
            text.unwrap_or_default().to_owned()
        };
        Self {
            file: file.to_owned(),
            kind: kind.to_owned(),
            namespace: text("namespace"),
            name: text("name"),
            value: document.value(),
            lines: Lines::new(document, document.line),
        }
    }

    /// Kind, namespace and name.
    pub(crate) fn id(&self) -> String {
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => self.kind.clone(),
            ("", name) => format!("{} {name}", self.kind),
            (namespace, name) => format!("{} {namespace}/{name}", self.kind),
        }
    }

    /// The value at this JSON pointer, or null.
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The elements of the array at this JSON pointer.
    pub(crate) fn elements(&self, pointer: &str) -> &[Value] {
        self.at(pointer).as_array().map_or(&[], Vec::as_slice)
    }

    /// The line of this field, such as `spec.match[0].mode`.
    pub(crate) fn line(&self, field: &str) -> u64 {
        self.lines.of(field)
    }
}

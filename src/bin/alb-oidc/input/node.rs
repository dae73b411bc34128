//! YAML and JSON with the line of each value. Knows no format.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_saphyr::{Spanned, UserMessageFormatter};

use crate::trouble::Trouble;

/// A YAML or JSON value with its line numbers.
pub(crate) struct Node {
    pub(crate) line: u64,
    shape: Shape,
}

enum Shape {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned {
            value, referenced, ..
        } = Spanned::deserialize(deserializer)?;
        Ok(Self {
            line: referenced.line(),
            shape: value,
        })
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Shape;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Shape, E> {
                Ok(Shape::Scalar(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
                Ok(Shape::Scalar(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
                Ok(Shape::Scalar(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Shape, E> {
                Ok(Shape::Scalar(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Shape, E> {
                Ok(Shape::Scalar(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Shape, E> {
                Ok(Shape::Scalar(value.into()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Shape, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Shape::List(elements))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Shape, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Shape::Map(members))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Node {
    /// The member at this path of names, and the line of its name.
    pub(crate) fn member(&self, path: &[&str]) -> Option<(u64, &Node)> {
        let (name, below) = path.split_first()?;
        let Shape::Map(members) = &self.shape else {
            return None;
        };
        let (name, node) = members.iter().find(|(found, _)| found.value == **name)?;
        if below.is_empty() {
            Some((name.referenced.line(), node))
        } else {
            node.member(below)
        }
    }

    pub(crate) fn text(&self, path: &[&str]) -> Option<&str> {
        match &self.member(path)?.1.shape {
            Shape::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn value(&self) -> Value {
        match &self.shape {
            Shape::Scalar(value) => value.clone(),
            Shape::List(elements) => elements.iter().map(Self::value).collect(),
            Shape::Map(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, node)| (name.value.clone(), node.value()))
                    .collect(),
            ),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.shape, Shape::Scalar(Value::Null))
    }

    /// The elements of the list at this path of names.
    pub(crate) fn elements(&self, path: &[&str]) -> &[Node] {
        match self.member(path) {
            Some((
                _,
                Node {
                    shape: Shape::List(elements),
                    ..
                },
            )) => elements,
            _ => &[],
        }
    }

    /// Adds the line of each field to `lines`.
    fn lines(&self, path: &str, line: u64, lines: &mut HashMap<String, u64>) {
        match &self.shape {
            Shape::Scalar(_) => {}
            Shape::List(elements) => {
                for (position, element) in elements.iter().enumerate() {
                    element.lines(&format!("{path}[{position}]"), element.line, lines);
                }
            }
            Shape::Map(members) => {
                for (name, node) in members {
                    let path = if path.is_empty() {
                        name.value.clone()
                    } else {
                        format!("{path}.{}", name.value)
                    };
                    node.lines(&path, name.referenced.line(), lines);
                }
            }
        }
        lines.insert(path.to_owned(), line);
    }
}

/// The line of each field of a document.
pub(crate) struct Lines {
    first: u64,
    known: HashMap<String, u64>,
}

impl Lines {
    /// The lines below `node`. Its name is in `line`.
    pub(crate) fn new(node: &Node, line: u64) -> Self {
        let mut lines = Self::at(line);
        node.lines("", line, &mut lines.known);
        lines
    }

    /// The lines of an absent value, which would be in `line`.
    pub(crate) fn at(line: u64) -> Self {
        Self {
            first: line,
            known: HashMap::new(),
        }
    }

    /// The line of `path`, or of its closest known parent. The paths have the form of
    /// [`alb_oidc_filter::ConfigError::path`].
    pub(crate) fn of(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.known.get(path) {
                return *line;
            }
            let Some((above, _)) = path
                .rfind(['.', '['])
                .and_then(|end| path.split_at_checked(end))
            else {
                return self.first;
            };
            path = above;
        }
    }
}

/// The documents in `text`, with their line numbers. `expected` describes the content in an error.
pub(crate) fn parse(
    path: &Path,
    file: &str,
    text: &str,
    expected: &str,
) -> Result<Vec<Node>, Trouble> {
    if text.trim().is_empty() {
        return Err(Trouble(format!(
            "{file}: found nothing, expected {expected} in YAML or JSON"
        )));
    }
    let unreadable = |line: u64, what: String| {
        let what = what.lines().next().unwrap_or_default().to_owned();
        Trouble(format!(
            "{file}:{line}: found invalid text, expected YAML or JSON: {what}"
        ))
    };
    // The YAML parser accepts text that is not valid JSON.
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        return Err(unreadable(
            u64::try_from(error.line()).unwrap_or(1),
            error.to_string(),
        ));
    }
    serde_saphyr::from_multiple(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        unreadable(
            line,
            error
                .without_snippet()
                .render_with_formatter(&UserMessageFormatter),
        )
    })
}

//! Reads the fields of a JSON object by name and collects mistakes with the paths of their fields.
//! [`super::reference`] lists names, types, bounds and defaults. No field has a meaning here.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::reference::{Default as FieldDefault, Field, Kind, children, field};
use crate::access::regex::MAX_COMPILED_REGEX_BYTES;

/// One mistake in the plugin config.
///
/// Displayed on one line, as `FIELD: found X, expected Y`. Fields that contradict each other:
/// `FIELD cannot be combined with OTHER: reason` or `FIELD requires OTHER: reason`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    path: String,
    /// Follows the path directly.
    text: String,
}

impl ConfigError {
    pub(super) fn new(path: &str, found: &str, expected: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: [": found ", found, ", expected ", expected].concat(),
        }
    }

    /// The path of the field, such as `userId.transformers[0].matches`. Empty for the whole config.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = if self.path.is_empty() {
            "pluginConfig"
        } else {
            &self.path
        };
        for c in path.chars().chain(self.text.chars()) {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The mistakes found so far.
#[derive(Default)]
pub(super) struct Mistakes(RefCell<Vec<ConfigError>>);

impl Mistakes {
    fn add(&self, error: ConfigError) {
        if let Ok(mut errors) = self.0.try_borrow_mut() {
            errors.push(error);
        }
    }

    /// The distinct mistakes in the order found. A field that is read twice adds its mistake twice.
    pub(super) fn into_inner(self) -> Vec<ConfigError> {
        let mut errors = self.0.into_inner();
        let mut reported = BTreeSet::new();
        errors.retain(|error| reported.insert(error.clone()));
        errors
    }

    fn count(&self) -> usize {
        self.0.try_borrow().map_or(0, |errors| errors.len())
    }
}

/// An object of the config. An optional object that is absent has the default in every field.
pub(super) struct Object<'a> {
    /// The path in the reference: without positions in arrays.
    schema: String,
    path: String,
    /// `None`: absent.
    members: Option<&'a Map<String, Value>>,
    mistakes: &'a Mistakes,
}

impl<'a> Object<'a> {
    pub(super) fn root(value: &'a Value, mistakes: &'a Mistakes) -> Option<Self> {
        match value {
            Value::Object(members) => Some(Self::checked(
                String::new(),
                String::new(),
                members,
                mistakes,
            )),
            _ => {
                mistakes.add(ConfigError::new("", &describe(value), "a JSON object"));
                None
            }
        }
    }

    fn checked(
        schema: String,
        path: String,
        members: &'a Map<String, Value>,
        mistakes: &'a Mistakes,
    ) -> Self {
        let object = Self {
            schema,
            path,
            members: Some(members),
            mistakes,
        };
        let known: Vec<_> = children(&object.schema).map(Field::name).collect();
        for name in members
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
        {
            object.mistake(
                name,
                "an unknown field",
                &format!("one of: {}", known.join(", ")),
            );
        }
        object
    }

    /// Adds a mistake in `field`, or in the object itself if `field` is empty.
    pub(super) fn mistake(&self, field: &str, found: &str, expected: &str) {
        let path = join(&self.path, field);
        self.mistakes.add(ConfigError::new(&path, found, expected));
    }

    /// Adds the mistake that `field` cannot be combined with `other`.
    pub(super) fn conflict(&self, field: &str, other: &str, reason: &str) {
        self.contradiction(field, &[" cannot be combined with ", other, ": ", reason]);
    }

    /// Adds the mistake that `field` requires something that the config does not have.
    pub(super) fn requirement(&self, field: &str, required: &str) {
        self.contradiction(field, &[" requires ", required]);
    }

    fn contradiction(&self, field: &str, text: &[&str]) {
        self.mistakes.add(ConfigError {
            path: join(&self.path, field),
            text: text.concat(),
        });
    }

    /// The number of mistakes in the whole config so far. A check that depends on other fields runs
    /// only if they had none, so that a mistake is reported once.
    pub(super) fn mistake_count(&self) -> usize {
        self.mistakes.count()
    }

    /// `outcome`; if it is `None`, adds a mistake in `field`, which holds `found`.
    pub(super) fn check<T>(
        &self,
        field: &str,
        found: &str,
        outcome: Option<T>,
        expected: &str,
    ) -> Option<T> {
        // The reader of the string reported an absent or empty one.
        if outcome.is_none() && !found.is_empty() {
            self.mistake(field, &describe(&Value::String(found.to_owned())), expected);
        }
        outcome
    }

    fn spec(&self, name: &str) -> &'static Field {
        field(&join(&self.schema, name))
    }

    /// The member's value. Adds a mistake if a required member is absent.
    fn value(&self, name: &str) -> Option<&'a Value> {
        let value = self.members.and_then(|members| members.get(name));
        if value.is_none() && self.members.is_some() && self.spec(name).is_required() {
            self.mistake(name, "nothing", &self.spec(name).expected());
        }
        value
    }

    fn wrong<T>(&self, name: &str, value: &Value) -> Option<T> {
        let spec = self.spec(name);
        let is_text = matches!(spec.kind, Kind::String { .. } | Kind::StringOrNull { .. });
        let hint = if is_text { hint(value) } else { "" };
        self.mistake(name, &describe(value), &[&spec.expected(), hint].concat());
        None
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Bool(value)) => Some(*value),
            Some(other) => self.wrong(name, other),
            None => None,
        }
        .unwrap_or(matches!(
            self.spec(name).default,
            FieldDefault::Boolean(true)
        ))
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        let Kind::Number { least, most } = self.spec(name).kind else {
            return 0;
        };
        match self.value(name) {
            Some(value) => match value.as_u64() {
                Some(number) if (least..=most).contains(&number) => Some(number),
                _ => self.wrong(name, value),
            },
            None => None,
        }
        .unwrap_or(match self.spec(name).default {
            FieldDefault::Number(number) => number,
            _ => least,
        })
    }

    /// The string, or `None` if it is absent, wrong, or an allowed null.
    pub(super) fn optional_string(&self, name: &str) -> Option<&'a str> {
        match self.value(name)? {
            Value::String(text) if self.spec(name).accepts_text(text) => Some(text),
            Value::Null if matches!(self.spec(name).kind, Kind::StringOrNull { .. }) => None,
            other => self.wrong(name, other),
        }
    }

    pub(super) fn string(&self, name: &str) -> &'a str {
        self.optional_string(name)
            .unwrap_or(match self.spec(name).default {
                FieldDefault::Text(text) => text,
                _ => "",
            })
    }

    pub(super) fn strings(&self, name: &str) -> Vec<&'a str> {
        let Some(elements) = self.elements(name) else {
            return match self.spec(name).default {
                FieldDefault::Texts(texts) => texts.to_vec(),
                _ => Vec::new(),
            };
        };
        let text = |(position, element): (usize, &'a Value)| match element {
            Value::String(text) => Some(text.as_str()),
            other => {
                let expected = ["a string", hint(other)].concat();
                self.mistake(&format!("{name}[{position}]"), &describe(other), &expected);
                None
            }
        };
        elements.iter().enumerate().filter_map(text).collect()
    }

    /// The string, or the strings of the array, each with its field.
    pub(super) fn string_or_strings(&self, name: &str) -> Vec<(String, &'a str)> {
        let Some(value @ Value::Array(elements)) = self.members.and_then(|all| all.get(name))
        else {
            return vec![(name.to_owned(), self.string(name))];
        };
        if !self.spec(name).accepts_length(elements.len()) {
            self.wrong::<()>(name, value);
        }
        let text = |(position, element): (usize, &'a Value)| {
            let field = format!("{name}[{position}]");
            match element {
                Value::String(text) if self.spec(name).accepts_text(text) => Some((field, &**text)),
                other => {
                    self.mistake(
                        &field,
                        &describe(other),
                        &self.spec(name).expected_element(),
                    );
                    None
                }
            }
        };
        elements.iter().enumerate().filter_map(text).collect()
    }

    pub(super) fn object(&self, name: &str) -> Object<'a> {
        let (schema, path) = (join(&self.schema, name), join(&self.path, name));
        match self.value(name) {
            Some(Value::Object(members)) => {
                return Self::checked(schema, path, members, self.mistakes);
            }
            Some(other) => self.wrong::<()>(name, other),
            None => None,
        };
        Object {
            schema,
            path,
            members: None,
            mistakes: self.mistakes,
        }
    }

    /// Whether the field `name` is present.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members
            .is_some_and(|members| members.contains_key(name))
    }

    /// The object `name`; `None` if it is absent.
    pub(super) fn optional_object(&self, name: &str) -> Option<Object<'a>> {
        self.members?.contains_key(name).then(|| self.object(name))
    }

    /// The string `name`; `None` if it is absent, wrong or empty.
    pub(super) fn given_string(&self, name: &str) -> Option<&'a str> {
        Some(self.string(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn objects(&self, name: &str) -> Vec<Object<'a>> {
        let object = |(position, element): (usize, &'a Value)| match element {
            Value::Object(members) => {
                let path = join(&self.path, &format!("{name}[{position}]"));
                Some(Self::checked(
                    join(&self.schema, name),
                    path,
                    members,
                    self.mistakes,
                ))
            }
            other => {
                self.mistake(
                    &format!("{name}[{position}]"),
                    &describe(other),
                    "an object",
                );
                None
            }
        };
        self.elements(name)
            .unwrap_or_default()
            .iter()
            .enumerate()
            .filter_map(object)
            .collect()
    }

    fn elements(&self, name: &str) -> Option<&'a [Value]> {
        match self.value(name)? {
            Value::Array(elements) if self.spec(name).accepts_length(elements.len()) => {
                Some(elements)
            }
            other => self.wrong(name, other),
        }
    }
}

fn join(parent: &str, name: &str) -> String {
    match (parent.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => parent.to_owned(),
        _ => format!("{parent}.{name}"),
    }
}

/// What to do about a `value` in the place of text.
fn hint(value: &Value) -> &'static str {
    match value {
        // YAML makes them of text such as `12e3` and `no`.
        Value::Number(_) | Value::Bool(_) => ": put the value in quotes",
        _ => "",
    }
}

/// The value for a message, at most 160 characters of it.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(elements) => format!("an array of {} elements", elements.len()),
        other => {
            let text = serde_json::to_string(other).unwrap_or_default();
            match text.char_indices().nth(160) {
                Some((cut, _)) => format!(
                    "{}… ({} bytes)",
                    text.get(..cut).unwrap_or_default(),
                    text.len()
                ),
                None => text,
            }
        }
    }
}

/// The regex in `field`; `None` after a mistake.
pub(super) fn read_regex(object: &Object<'_>, field: &str) -> Option<Regex> {
    let text = object.string(field);
    match RegexBuilder::new(text)
        .size_limit(MAX_COMPILED_REGEX_BYTES)
        .build()
    {
        Ok(regex) => Some(regex),
        Err(error) => {
            object.mistake(field, &quoted(text), &format!("a regex ({error})"));
            None
        }
    }
}

/// `text` as a JSON string for a message, at most 160 characters of it.
pub(super) fn quoted(text: &str) -> String {
    describe(&Value::String(text.to_owned()))
}

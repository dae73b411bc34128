//! Values that an operator forgot to write.

use serde_json::Value;

use super::walk::first;
use crate::finding::{Code, Finding};
use crate::input::{Object, PluginConfig};

/// Words that stand for a value in documentation and examples.
const WORDS: [&str; 21] = [
    "ACCOUNT",
    "ACCOUNT_ID",
    "ALB_ARN",
    "AWS_ACCOUNT_ID",
    "AWS_REGION",
    "CHANGEME",
    "CHANGE_ME",
    "CLIENT_ID",
    "CLIENTID",
    "DIGEST",
    "DOMAIN",
    "EXAMPLE",
    "FIXME",
    "ISSUER",
    "POOL",
    "POOL_ID",
    "REGION",
    "REGISTRY",
    "REPLACE_ME",
    "REPOSITORY",
    "TODO",
];

/// The digest of nothing, which the examples have.
const EMPTY_DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Fields with regexes and replacements: `$`, `{` and `<` are part of their syntax.
const PATTERNS: [&str; 4] = ["matches", "replaces", "regex", "keep"];

/// The first placeholder in a plugin config without a resource, or in the chart's values.
pub(super) fn in_config(plugin: &PluginConfig) -> Option<Finding> {
    if let Some(values) = &plugin.values {
        let (path, value) = first(&values.value, "", &is_placeholder)?;
        let message = format!("found {value}, expected a value of your installation");
        return Some(Finding::in_object(
            values,
            Code::Placeholder,
            &path,
            &message,
        ));
    }
    let members = Value::Object(plugin.members.clone());
    let (path, value) = first(&members, "", &is_placeholder)?;
    let message = format!("{path}: found {value}, expected a value of your installation");
    Some(Finding::in_config(
        plugin,
        Code::Placeholder,
        &path,
        message,
    ))
}

/// The first placeholder in a resource's `spec`.
pub(super) fn in_object(object: &Object) -> Option<Finding> {
    let (path, value) = first(object.at("/spec"), "spec", &is_placeholder)?;
    let message = format!("found {value}, expected a value of your installation");
    Some(Finding::in_object(
        object,
        Code::Placeholder,
        &path,
        &message,
    ))
}

fn is_placeholder(path: &str, value: &Value) -> bool {
    let field = path.rsplit('.').next().unwrap_or_default();
    let Some(text) = value.as_str().filter(|_| !PATTERNS.contains(&field)) else {
        return false;
    };
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_enclosed = |open: &str, close: char| {
        text.split_once(open).is_some_and(|(_, rest)| {
            let name = rest.split_once(close).map_or("", |(name, _)| name);
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c);
            !name.is_empty() && name.trim() == name && name.chars().all(is_name)
        })
    };
    words.any(|word| WORDS.contains(&word) || word.ends_with("_EXAMPLE"))
        || text.contains(EMPTY_DIGEST)
        || is_enclosed("<", '>')
        || is_enclosed("${", '}')
        || is_enclosed("$(", ')')
        || (text.contains("{{") && text.contains("}}"))
}

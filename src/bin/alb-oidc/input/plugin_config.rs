//! One plugin config with the line of each field. The library validates it.

use alb_oidc_filter::{Config, ConfigError, KeyFormat, KeySource};
use serde_json::{Map, Value};

use super::node::{Lines, Node};
use super::object::Object;

/// One plugin config, and the Istio resource that contains it.
pub(crate) struct PluginConfig {
    /// The file's name.
    pub(crate) file: String,
    /// The Istio resource that contains it; `None` for a bare `pluginConfig` and the chart's
    /// values.
    pub(crate) object: Option<Object>,
    /// The chart's values that contain it.
    pub(crate) values: Option<Object>,
    /// The members of the config. Empty if it is not an object.
    pub(crate) members: Map<String, Value>,
    /// The validated config, or its errors.
    pub(crate) outcome: Result<Config, Vec<ConfigError>>,
    lines: Lines,
}

impl PluginConfig {
    /// `config` is the config in `document`, with the line of its name.
    pub(super) fn new(
        file: &str,
        object: Option<Object>,
        document: &Node,
        config: Option<(u64, &Node)>,
    ) -> Self {
        // Errors of an absent config get the first line of the document.
        let (lines, value) = config.map_or_else(
            || (Lines::at(document.line), Value::Null),
            |(line, node)| (Lines::new(node, line), node.value()),
        );
        // The module receives JSON text. Its size and depth are limited, too.
        let text = if value.is_null() {
            String::new()
        } else {
            value.to_string()
        };
        let outcome = Config::parse(text.as_bytes());
        let members = match value {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        Self {
            file: file.to_owned(),
            object,
            values: None,
            members,
            outcome,
            lines,
        }
    }

    /// The config in values of the chart.
    pub(super) fn of_values(file: &str, document: &Node, config: (u64, &Node)) -> Self {
        let plugin = Self::new(file, None, document, Some(config));
        Self {
            values: Some(Object::new(file, "values", document)),
            ..plugin
        }
    }

    /// The line of this field of the config.
    pub(crate) fn line(&self, field: &str) -> u64 {
        self.lines.of(field)
    }

    /// The URL at which a key server publishes the key `id`.
    pub(crate) fn key_url(&self, source: &KeySource, id: &str) -> String {
        let field = |object: &str, name: &str| self.members.get(object)?.get(name)?.as_str();
        let (configured, id) = match source.format {
            KeyFormat::Pem => (field("publicKeys", "endpoint"), id),
            KeyFormat::KeySet => (
                field("accessToken", "jwksUri").or_else(|| field("accessToken", "issuer")),
                "",
            ),
        };
        // The parsed config has no scheme: Envoy's cluster decides about TLS.
        let scheme = if configured.is_some_and(|url| url.starts_with("http:")) {
            "http"
        } else {
            "https"
        };
        format!("{scheme}://{}{}{id}", source.authority, source.path)
    }
}

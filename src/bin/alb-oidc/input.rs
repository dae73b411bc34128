//! The operator's input: files, standard input, and plugin configs with the line of each field. The
//! library validates the configs.

use std::io::Read as _;
use std::path::Path;

use alb_oidc_filter::{Config, ConfigError, KeyFormat, KeySource};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use serde_saphyr::{Spanned, UserMessageFormatter};

/// Maximum size of a file or of standard input, in bytes.
const MAX_INPUT_BYTES: u64 = 4 * 1024 * 1024;

/// An error that the operator has to correct. Each line says what is wrong and where.
#[derive(Debug)]
pub(crate) struct Trouble(pub(crate) String);

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name and the text of the file `path`; `-` is standard input.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or has more than [`MAX_INPUT_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<(String, String), Trouble> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let trouble = |what: &dyn std::fmt::Display| Trouble(format!("{name}: {what}"));
    let mut bytes = Vec::new();
    let read = if is_stdin {
        std::io::stdin()
            .lock()
            .take(MAX_INPUT_BYTES + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes))
    };
    let length = read.map_err(|error| trouble(&error))?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_INPUT_BYTES) {
        return Err(trouble(&format_args!(
            "found more than {MAX_INPUT_BYTES} bytes, expected fewer"
        )));
    }
    match String::from_utf8(bytes) {
        // Editors on Windows begin a file with a byte order mark.
        Ok(text) => match text.strip_prefix('\u{feff}') {
            Some(text) => Ok((name, text.to_owned())),
            None => Ok((name, text)),
        },
        Err(error) => Err(trouble(&format_args!(
            "found a byte that is not UTF-8 at offset {}, expected text",
            error.utf8_error().valid_up_to()
        ))),
    }
}

/// A YAML or JSON value with its line numbers.
struct Node {
    line: u64,
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
    fn member(&self, path: &[&str]) -> Option<(u64, &Node)> {
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

    fn text(&self, path: &[&str]) -> Option<&str> {
        match &self.member(path)?.1.shape {
            Shape::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn value(&self) -> Value {
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

    /// Adds the line of each field to `lines`. The paths have the form of [`ConfigError::path`].
    fn lines(&self, path: &str, line: u64, lines: &mut Vec<(String, u64)>) {
        lines.push((path.to_owned(), line));
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
    }
}

/// One plugin config, and the Istio resource that contains it.
pub(crate) struct PluginConfig {
    /// The file's name.
    pub(crate) file: String,
    /// Kind, namespace and name of the Istio resource; `None` for a bare `pluginConfig`.
    pub(crate) resource: Option<String>,
    /// The resource's `spec`.
    pub(crate) spec: Value,
    /// The members of the config. Empty if it is not an object.
    pub(crate) members: Map<String, Value>,
    /// The validated config, or its errors.
    pub(crate) outcome: Result<Config, Vec<ConfigError>>,
    lines: Vec<(String, u64)>,
    spec_lines: Vec<(String, u64)>,
}

/// The line of `path`, or of its closest known parent.
fn line_of(lines: &[(String, u64)], path: &str) -> u64 {
    let mut path = path;
    loop {
        if let Some((_, line)) = lines.iter().find(|(known, _)| known == path) {
            return *line;
        }
        let Some((above, _)) = path
            .rfind(['.', '['])
            .and_then(|end| path.split_at_checked(end))
        else {
            return lines.first().map_or(1, |(_, line)| *line);
        };
        path = above;
    }
}

impl PluginConfig {
    fn new(
        file: &str,
        resource: Option<String>,
        document: &Node,
        config: Option<(u64, &Node)>,
    ) -> Self {
        let (mut lines, mut spec_lines) = (Vec::new(), Vec::new());
        let spec = document.member(&["spec"]);
        if let Some((line, spec)) = spec.filter(|_| resource.is_some()) {
            spec.lines("", line, &mut spec_lines);
        }
        // Errors of an absent config get the first line of the resource.
        let (line, value) = config.map_or((document.line, Value::Null), |(line, node)| {
            (line, node.value())
        });
        match config {
            Some((line, node)) => node.lines("", line, &mut lines),
            None => lines.push((String::new(), line)),
        }
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
        let spec = spec.map(|(_, node)| node.value()).unwrap_or_default();
        Self {
            file: file.to_owned(),
            resource,
            spec,
            members,
            outcome,
            lines,
            spec_lines,
        }
    }

    /// The line of this field of the config.
    pub(crate) fn line(&self, field: &str) -> u64 {
        line_of(&self.lines, field)
    }

    /// The line of this field of the resource's `spec`.
    pub(crate) fn spec_line(&self, field: &str) -> u64 {
        line_of(&self.spec_lines, field)
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

/// The documents in `text`, with their line numbers. `expected` describes the content in an error.
fn parse(path: &Path, file: &str, text: &str, expected: &str) -> Result<Vec<Node>, Trouble> {
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

/// One document, and the line of each of its fields.
pub(crate) struct Document {
    file: String,
    lines: Vec<(String, u64)>,
    pub(crate) value: Value,
}

impl Document {
    /// Reads the only document in the file `path`. `expected` describes the content in an error.
    pub(crate) fn read(path: &Path, expected: &str) -> Result<Self, Trouble> {
        let (file, text) = read_text(path)?;
        let documents = parse(path, &file, &text, expected)?;
        let [node] = documents.as_slice() else {
            return Err(Trouble(format!(
                "{file}: found {} documents, expected one: {expected}",
                documents.len()
            )));
        };
        let mut lines = Vec::new();
        node.lines("", node.line, &mut lines);
        Ok(Self {
            value: node.value(),
            file,
            lines,
        })
    }

    /// The error message for `field`, with file and line.
    pub(crate) fn mistake(&self, field: &str, what: &str) -> String {
        let name = if field.is_empty() {
            String::new()
        } else {
            format!("{field}: ")
        };
        format!(
            "{}:{}: {name}{what}",
            self.file,
            line_of(&self.lines, field)
        )
    }
}

/// Reads every plugin config in the file `path`: bare, or in Istio resources.
pub(crate) fn read_configs(path: &Path) -> Result<Vec<PluginConfig>, Trouble> {
    let (file, text) = read_text(path)?;
    let documents = parse(path, &file, &text, "a plugin config")?;
    let mut configs = Vec::new();
    for document in &documents {
        collect(&file, document, &mut configs);
    }
    // Ignore the configs of other plugins, if one is recognizably the filter's.
    if configs
        .iter()
        .any(|config| config.members.contains_key("loadBalancers"))
    {
        configs.retain(|config| config.members.contains_key("loadBalancers"));
    }
    if configs.is_empty() {
        return Err(Trouble(format!(
            "{file}: found no plugin config, expected one in YAML or JSON, or a WasmPlugin or TrafficExtension that contains one; \
             in an Envoy configuration, copy the text in `configuration.value` of the filter"
        )));
    }
    Ok(configs)
}

fn collect(file: &str, document: &Node, configs: &mut Vec<PluginConfig>) {
    let kind = document.text(&["kind"]);
    let is_envoys = document.member(&["static_resources"]).is_some();
    let path: &[&str] = match kind {
        None if is_envoys => return,
        None => {
            configs.push(PluginConfig::new(
                file,
                None,
                document,
                Some((document.line, document)),
            ));
            return;
        }
        Some("WasmPlugin") => &["spec", "pluginConfig"],
        Some("TrafficExtension") => &["spec", "wasm", "pluginConfig"],
        Some(kind) if kind.ends_with("List") => {
            if let Some((
                _,
                Node {
                    shape: Shape::List(items),
                    ..
                },
            )) = document.member(&["items"])
            {
                for item in items {
                    collect(file, item, configs);
                }
            }
            return;
        }
        Some(_) => return,
    };
    let name = [
        document.text(&["metadata", "namespace"]),
        document.text(&["metadata", "name"]),
    ];
    let name = name.into_iter().flatten().collect::<Vec<_>>().join("/");
    let resource = format!("{} {name}", kind.unwrap_or_default());
    configs.push(PluginConfig::new(
        file,
        Some(resource),
        document,
        document.member(path),
    ));
}

/// A config that has only `members` and a placeholder load balancer, for commands that verify no
/// token.
pub(crate) fn config_of(mut members: Map<String, Value>) -> Result<Config, Vec<ConfigError>> {
    let arn =
        "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/any/0000000000000000";
    members.insert(
        "loadBalancers".to_owned(),
        json!([{"arn": arn, "issuer": null, "clientId": null}]),
    );
    Config::from_value(&Value::Object(members))
}

/// The only config in the file `path`.
///
/// # Errors
/// There are several configs, or the only one is invalid.
pub(crate) fn read_config(path: &Path) -> Result<(PluginConfig, Config), Trouble> {
    let mut configs = read_configs(path)?;
    let (Some(plugin), true) = (configs.pop(), configs.is_empty()) else {
        return Err(Trouble(format!(
            "{}: found several plugin configs, expected one",
            path.display()
        )));
    };
    match plugin.outcome.clone() {
        Ok(config) => Ok((plugin, config)),
        Err(mistakes) => {
            let lines = mistakes.iter().map(|mistake| {
                format!("{}:{}: {mistake}", plugin.file, plugin.line(mistake.path()))
            });
            Err(Trouble(lines.collect::<Vec<_>>().join("\n")))
        }
    }
}

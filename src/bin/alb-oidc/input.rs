//! What the operator hands over: files, standard input, and plugin configs with the line on which each field stands.
//! Nothing here judges a config: the library does.

use std::io::Read as _;
use std::path::Path;

use alb_oidc_filter::{Config, ConfigError, KeyFormat, KeySource};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use serde_saphyr::{Spanned, UserMessageFormatter};

/// The most that is read of a file or of standard input, in bytes.
const MAX_INPUT_BYTES: u64 = 4 * 1024 * 1024;

/// What the operator has to mend, in one line that says what and where.
#[derive(Debug)]
pub(crate) struct Trouble(pub(crate) String);

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of the file `path`, or of standard input where that is `-`, and what to call it.
pub(crate) fn read_text(path: &Path) -> Result<(String, String), Trouble> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let trouble = |what: &dyn std::fmt::Display| Trouble(format!("{name}: {what}"));
    let mut bytes = Vec::new();
    let read = if is_stdin {
        std::io::stdin().lock().take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes))
    };
    let length = read.map_err(|error| trouble(&error))?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_INPUT_BYTES) {
        return Err(trouble(&format_args!("found more than {MAX_INPUT_BYTES} bytes, expected fewer")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(trouble(&format_args!(
            "found a byte that is no UTF-8 at offset {}, expected text",
            error.utf8_error().valid_up_to()
        ))),
    }
}

/// A YAML or JSON value that knows its lines.
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
        let Spanned { value, referenced, .. } = Spanned::deserialize(deserializer)?;
        Ok(Self { line: referenced.line(), shape: value })
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

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Shape::List(elements))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
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
    /// The member at this path of names, and the line on which its name stands.
    fn member(&self, path: &[&str]) -> Option<(u64, &Node)> {
        let (name, below) = path.split_first()?;
        let Shape::Map(members) = &self.shape else { return None };
        let (name, node) = members.iter().find(|(found, _)| found.value == **name)?;
        if below.is_empty() { Some((name.referenced.line(), node)) } else { node.member(below) }
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
            Shape::Map(members) => {
                Value::Object(members.iter().map(|(name, node)| (name.value.clone(), node.value())).collect())
            }
        }
    }

    /// Adds the line of each field, by its path as a [`ConfigError`] spells it.
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
                    let path = if path.is_empty() { name.value.clone() } else { format!("{path}.{}", name.value) };
                    node.lines(&path, name.referenced.line(), lines);
                }
            }
        }
    }
}

/// One plugin config, and the Istio resource that it stands in.
pub(crate) struct PluginConfig {
    /// The file's name.
    pub(crate) file: String,
    /// Kind, namespace and name of the Istio resource; `None` where the file is a bare `pluginConfig`.
    pub(crate) resource: Option<String>,
    /// The resource's `spec`.
    pub(crate) spec: Value,
    /// The members of the config, as far as it has any.
    pub(crate) members: Map<String, Value>,
    /// The config as the library judges it.
    pub(crate) outcome: Result<Config, Vec<ConfigError>>,
    lines: Vec<(String, u64)>,
    spec_lines: Vec<(String, u64)>,
}

/// The line of `path`, or of what is closest above it.
fn line_of(lines: &[(String, u64)], path: &str) -> u64 {
    let mut path = path;
    loop {
        if let Some((_, line)) = lines.iter().find(|(known, _)| known == path) {
            return *line;
        }
        let Some((above, _)) = path.rfind(['.', '[']).and_then(|end| path.split_at_checked(end)) else {
            return lines.first().map_or(1, |(_, line)| *line);
        };
        path = above;
    }
}

impl PluginConfig {
    fn new(file: &str, resource: Option<String>, document: &Node, config: Option<(u64, &Node)>) -> Self {
        let (mut lines, mut spec_lines) = (Vec::new(), Vec::new());
        let spec = document.member(&["spec"]);
        if let Some((line, spec)) = spec.filter(|_| resource.is_some()) {
            spec.lines("", line, &mut spec_lines);
        }
        // What is absent reaches the module as nothing, and is wrong where the resource begins.
        let (line, value) = config.map_or((document.line, Value::Null), |(line, node)| (line, node.value()));
        match config {
            Some((line, node)) => node.lines("", line, &mut lines),
            None => lines.push((String::new(), line)),
        }
        // As it reaches the module: JSON text, whose size and depth have bounds too.
        let text = if value.is_null() { String::new() } else { value.to_string() };
        let outcome = Config::parse(text.as_bytes());
        let members = match value {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let spec = spec.map(|(_, node)| node.value()).unwrap_or_default();
        Self { file: file.to_owned(), resource, spec, members, outcome, lines, spec_lines }
    }

    /// The line on which the field of the config stands.
    pub(crate) fn line(&self, field: &str) -> u64 {
        line_of(&self.lines, field)
    }

    /// The line on which the field of the resource's `spec` stands.
    pub(crate) fn spec_line(&self, field: &str) -> u64 {
        line_of(&self.spec_lines, field)
    }

    /// The URL at which a key server publishes the key `id`.
    pub(crate) fn key_url(&self, source: &KeySource, id: &str) -> String {
        let field = |object: &str, name: &str| self.members.get(object)?.get(name)?.as_str();
        let (configured, id) = match source.format {
            KeyFormat::Pem => (field("publicKeys", "endpoint"), id),
            KeyFormat::KeySet => (field("accessToken", "jwksUri").or_else(|| field("accessToken", "issuer")), ""),
        };
        // The module is not told: TLS is the business of Envoy's cluster.
        let scheme = if configured.is_some_and(|url| url.starts_with("http:")) { "http" } else { "https" };
        format!("{scheme}://{}{}{id}", source.authority, source.path)
    }
}

/// The documents in `text`, each with its lines.
fn parse(path: &Path, file: &str, text: &str, expected: &str) -> Result<Vec<Node>, Trouble> {
    if text.trim().is_empty() {
        return Err(Trouble(format!("{file}: found nothing, expected {expected} in YAML or JSON")));
    }
    let unreadable = |line: u64, what: String| {
        let what = what.lines().next().unwrap_or_default().to_owned();
        Trouble(format!("{file}:{line}: found text that cannot be read, expected YAML or JSON: {what}"))
    };
    // Every JSON text is YAML; not the other way round.
    if path.extension().is_some_and(|extension| extension == "json")
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        return Err(unreadable(u64::try_from(error.line()).unwrap_or(1), error.to_string()));
    }
    serde_saphyr::from_multiple(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        unreadable(line, error.without_snippet().render_with_formatter(&UserMessageFormatter))
    })
}

/// One document, and the line on which each of its fields stands.
pub(crate) struct Document {
    file: String,
    lines: Vec<(String, u64)>,
    pub(crate) value: Value,
}

impl Document {
    /// Reads the one document in the file `path`, which is to hold `expected`.
    pub(crate) fn read(path: &Path, expected: &str) -> Result<Self, Trouble> {
        let (file, text) = read_text(path)?;
        let documents = parse(path, &file, &text, expected)?;
        let [node] = documents.as_slice() else {
            return Err(Trouble(format!("{file}: found {} documents, expected one: {expected}", documents.len())));
        };
        let mut lines = Vec::new();
        node.lines("", node.line, &mut lines);
        Ok(Self { value: node.value(), file, lines })
    }

    /// The line in which the operator is told what is wrong with `field`.
    pub(crate) fn mistake(&self, field: &str, what: &str) -> String {
        let name = if field.is_empty() { String::new() } else { format!("{field}: ") };
        format!("{}:{}: {name}{what}", self.file, line_of(&self.lines, field))
    }
}

/// Reads every plugin config in the file `path`: bare, or in Istio resources among others.
pub(crate) fn read_configs(path: &Path) -> Result<Vec<PluginConfig>, Trouble> {
    let (file, text) = read_text(path)?;
    let documents = parse(path, &file, &text, "a plugin config")?;
    let mut configs = Vec::new();
    for document in &documents {
        collect(&file, document, &mut configs);
    }
    // A gateway has other plugins too: theirs are none of ours.
    if configs.iter().any(|config| config.members.contains_key("loadBalancers")) {
        configs.retain(|config| config.members.contains_key("loadBalancers"));
    }
    if configs.is_empty() {
        return Err(Trouble(format!(
            "{file}: found no plugin config, expected one in YAML or JSON, or a WasmPlugin or TrafficExtension that holds one; \
             in Envoy's own configuration, it is the text in `configuration.value` of the filter"
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
            configs.push(PluginConfig::new(file, None, document, Some((document.line, document))));
            return;
        }
        Some("WasmPlugin") => &["spec", "pluginConfig"],
        Some("TrafficExtension") => &["spec", "wasm", "pluginConfig"],
        Some(kind) if kind.ends_with("List") => {
            if let Some((_, Node { shape: Shape::List(items), .. })) = document.member(&["items"]) {
                for item in items {
                    collect(file, item, configs);
                }
            }
            return;
        }
        Some(_) => return,
    };
    let name = [document.text(&["metadata", "namespace"]), document.text(&["metadata", "name"])];
    let name = name.into_iter().flatten().collect::<Vec<_>>().join("/");
    let resource = format!("{} {name}", kind.unwrap_or_default());
    configs.push(PluginConfig::new(file, Some(resource), document, document.member(path)));
}

/// A config that has only `members`. Whose tokens it would believe is beside the point: its load balancer is none.
pub(crate) fn config_of(mut members: Map<String, Value>) -> Result<Config, Vec<ConfigError>> {
    let arn = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/any/0000000000000000";
    members.insert("loadBalancers".to_owned(), json!([{"arn": arn, "issuer": null, "clientId": null}]));
    Config::from_value(&Value::Object(members))
}

/// The one good config in the file `path`.
pub(crate) fn read_config(path: &Path) -> Result<(PluginConfig, Config), Trouble> {
    let mut configs = read_configs(path)?;
    let (Some(plugin), true) = (configs.pop(), configs.is_empty()) else {
        return Err(Trouble(format!("{}: found several plugin configs, expected one", path.display())));
    };
    match plugin.outcome.clone() {
        Ok(config) => Ok((plugin, config)),
        Err(mistakes) => {
            let lines =
                mistakes.iter().map(|mistake| format!("{}:{}: {mistake}", plugin.file, plugin.line(mistake.path())));
            Err(Trouble(lines.collect::<Vec<_>>().join("\n")))
        }
    }
}

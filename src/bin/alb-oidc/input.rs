//! The operator's input: files, standard input, and plugin configs with the line of each field. The
//! library validates the configs.

mod node;
mod object;
mod plugin_config;

use std::io::Read as _;
use std::path::Path;

use alb_oidc_filter::{Config, ConfigError};
use serde_json::{Map, Value, json};

use node::{Lines, Node, parse};
pub(crate) use object::Object;
pub(crate) use plugin_config::PluginConfig;

pub(crate) use crate::trouble::Trouble;

/// Maximum size of a file or of standard input, in bytes: Kubeflow's manifests take several MiB.
const MAX_INPUT_BYTES: u64 = 32 * 1024 * 1024;

/// Standard input, as a path.
pub(crate) const STDIN: &str = "-";

/// The name of the file `path`, for messages.
pub(crate) fn name_of(path: &Path) -> String {
    if path == Path::new(STDIN) {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// The name and the text of the file `path`; `-` is standard input.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or has more than [`MAX_INPUT_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<(String, String), Trouble> {
    let is_stdin = path == Path::new(STDIN);
    let name = name_of(path);
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

/// One document, and the line of each of its fields.
pub(crate) struct Document {
    file: String,
    lines: Lines,
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
        Ok(Self {
            value: node.value(),
            file,
            lines: Lines::new(node, node.line),
        })
    }

    /// The file's name.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The line of `field`.
    pub(crate) fn line(&self, field: &str) -> u64 {
        self.lines.of(field)
    }

    /// The error message for `field`, with file and line.
    pub(crate) fn mistake(&self, field: &str, what: &str) -> String {
        let name = if field.is_empty() {
            String::new()
        } else {
            format!("{field}: ")
        };
        format!("{}:{}: {name}{what}", self.file, self.lines.of(field))
    }
}

/// The operator's input: plugin configs, and Kubernetes resources.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) configs: Vec<PluginConfig>,
    /// All resources but the extensions that contain the configs.
    pub(crate) objects: Vec<Object>,
}

impl Applied {
    /// Adds each document of the file `path`.
    pub(crate) fn read(&mut self, path: &Path) -> Result<(), Trouble> {
        let (file, text) = read_text(path)?;
        for document in &parse(
            path,
            &file,
            &text,
            "a plugin config or Kubernetes resources",
        )? {
            self.add(&file, document);
        }
        Ok(())
    }

    /// Adds a resource of a cluster. `name` takes the place of the file's name.
    ///
    /// # Errors
    /// The resource is not one that the other inputs could contain.
    #[cfg(feature = "doctor")]
    pub(crate) fn add_resource(&mut self, name: &str, resource: &Value) -> Result<(), Trouble> {
        let text = resource.to_string();
        for document in &parse(Path::new(name), name, &text, "a Kubernetes resource")? {
            self.add(name, document);
        }
        Ok(())
    }

    /// Drops the configs of other plugins, if one is recognizably the filter's.
    pub(crate) fn without_other_plugins(mut self) -> Self {
        let is_of_filter = |config: &PluginConfig| config.members.contains_key("loadBalancers");
        if self.configs.iter().any(is_of_filter) {
            self.configs.retain(is_of_filter);
        }
        self
    }

    fn add(&mut self, file: &str, document: &Node) {
        let Some(kind) = document.text(&["kind"]) else {
            self.add_without_kind(file, document);
            return;
        };
        let path: &[&str] = match kind {
            "WasmPlugin" => &["spec", "pluginConfig"],
            "TrafficExtension" => &["spec", "wasm", "pluginConfig"],
            kind if kind.ends_with("List") => {
                for item in document.elements(&["items"]) {
                    self.add(file, item);
                }
                return;
            }
            _ => {
                self.objects.push(Object::new(file, kind, document));
                return;
            }
        };
        let object = Object::new(file, kind, document);
        let config = document.member(path);
        self.configs
            .push(PluginConfig::new(file, Some(object), document, config));
    }

    /// A plugin config, the values of the chart, or something else.
    fn add_without_kind(&mut self, file: &str, document: &Node) {
        let is_envoys = document.member(&["static_resources"]).is_some();
        if is_envoys || document.is_null() {
            return;
        }
        let is_bare = document.member(&["loadBalancers"]).is_some();
        let of_values = document.member(&["pluginConfig"]).filter(|_| !is_bare);
        self.configs.push(match of_values {
            Some(config) => PluginConfig::of_values(file, document, config),
            None => PluginConfig::new(file, None, document, Some((document.line, document))),
        });
    }
}

/// Reads every plugin config in the file `path`: bare, in the chart's values, or in Istio
/// resources.
pub(crate) fn read_configs(path: &Path) -> Result<Vec<PluginConfig>, Trouble> {
    let mut applied = Applied::default();
    applied.read(path)?;
    let configs = applied.without_other_plugins().configs;
    if configs.is_empty() {
        return Err(no_config(&name_of(path)));
    }
    Ok(configs)
}

/// The error for an input without a plugin config.
pub(crate) fn no_config(place: &str) -> Trouble {
    Trouble(format!(
        "{place}: found no plugin config, expected one in YAML or JSON, or a WasmPlugin or TrafficExtension that contains one; \
         in an Envoy configuration, copy the text in `configuration.value` of the filter"
    ))
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

/// The only config in the file `path`, valid or not.
///
/// # Errors
/// There are several configs.
pub(crate) fn read_only(path: &Path) -> Result<PluginConfig, Trouble> {
    let mut configs = read_configs(path)?;
    match (configs.pop(), configs.is_empty()) {
        (Some(plugin), true) => Ok(plugin),
        _ => Err(Trouble(format!(
            "{}: found several plugin configs, expected one",
            name_of(path)
        ))),
    }
}

/// The only config in the file `path`.
///
/// # Errors
/// There are several configs, or the only one is invalid.
pub(crate) fn read_config(path: &Path) -> Result<(PluginConfig, Config), Trouble> {
    let plugin = read_only(path)?;
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

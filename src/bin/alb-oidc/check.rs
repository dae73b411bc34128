//! `alb-oidc check`: judges plugin configs and the resources applied with them, and describes what
//! the filter will do. The library validates the configs.

mod config;
mod extension;
mod files;
pub(crate) mod interlock;
mod key_servers;
mod meaning;
mod neighbours;
mod placeholder;
mod rules;
pub(crate) mod target;
pub(crate) mod walk;
mod warnings;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::finding::{self, Code, Finding, Format, sarif};
use crate::input::{Applied, Object, PluginConfig, Trouble, name_of, no_config};
use crate::output::{BAD, GOOD, TITLE, print, printable, styled};
use warnings::Warnings;

const EXAMPLES: &str = r#"Examples:
  alb-oidc check applied.yaml
  alb-oidc check - < applied.yaml
  alb-oidc check --partial wasm-plugin.yaml
  alb-oidc check --strict --output sarif applied.yaml

Every resource of the chart:
  helm template alb-oidc istio/chart --values values.yaml | alb-oidc check -"#;

/// Check a plugin config and the resources around it, and show what the filter will do
///
/// Judges the plugin config, its WasmPlugin or TrafficExtension, the interlock, the key servers'
/// ServiceEntries and DestinationRules, and policies and EnvoyFilters at the same gateway.
/// docs/operations.md describes each finding by its code.
///
/// Exit status: 0, 1 if there are errors, 2 if the input cannot be read.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// The applied resources, in YAML or JSON: the output of `helm template` or
    /// `kubectl kustomize`, or a pluginConfig alone. A directory: its YAML and JSON files. `-`:
    /// standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with status 1 for warnings, too
    #[arg(long)]
    strict: bool,
    /// The input is a part of the applied resources: report no missing ones
    #[arg(long)]
    partial: bool,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let mut applied = Applied::default();
        for file in files::files(&self.paths)? {
            applied.read(&file)?;
        }
        let applied = applied.without_other_plugins();
        if applied.configs.is_empty() && !applied.objects.iter().any(interlock::is_interlock) {
            let names = self.paths.iter().map(|path| name_of(path));
            return Err(no_config(&names.collect::<Vec<_>>().join(", ")));
        }
        let findings = findings(&applied, self.partial);
        let text = match self.output {
            Format::Text => text(&applied.configs, &findings),
            Format::Json => {
                let configs: Vec<_> = applied.configs.iter().map(described).collect();
                let findings: Vec<_> = findings.iter().map(Finding::json).collect();
                format!("{:#}\n", json!({"configs": configs, "findings": findings}))
            }
            Format::Sarif => format!("{:#}\n", sarif::log(&findings, &[])),
        };
        print(&text)?;
        Ok(finding::exit_code(&findings, self.strict))
    }
}

/// Every finding, by file and line.
pub(crate) fn findings(applied: &Applied, is_partial: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let guarded_hosts = neighbours::guarded_hosts(&applied.objects);
    for plugin in &applied.configs {
        of_config(plugin, &guarded_hosts, &mut findings);
        if let Some(extension) = &plugin.object {
            findings.extend(extension::findings(extension));
            findings.extend(placeholder::in_object(extension));
            if let Ok(config) = &plugin.outcome {
                let objects = &applied.objects;
                findings.extend(key_servers::findings(plugin, config, objects, is_partial));
            }
        } else {
            findings.extend(placeholder::in_config(plugin));
        }
    }
    let extensions: Vec<&Object> = applied
        .configs
        .iter()
        .filter_map(|plugin| plugin.object.as_ref())
        .collect();
    let interlocks: Vec<&Object> = applied
        .objects
        .iter()
        .filter(|object| interlock::is_interlock(object))
        .collect();
    findings.extend(extension::duplicates(&extensions));
    findings.extend(interlock::findings(&extensions, &interlocks, is_partial));
    findings.extend(neighbours::findings(&extensions, &applied.objects));
    let of_chart = applied
        .objects
        .iter()
        .filter(|object| neighbours::is_of_chart(object));
    findings.extend(of_chart.filter_map(placeholder::in_object));
    finding::sort(&mut findings);
    findings
}

/// The mistakes in one plugin config, or its warnings.
pub(crate) fn of_config(
    plugin: &PluginConfig,
    guarded_hosts: &[&str],
    findings: &mut Vec<Finding>,
) {
    match &plugin.outcome {
        Ok(config) => {
            let mut warnings = Warnings {
                plugin,
                guarded_hosts,
                findings,
            };
            config::warn(plugin, config, &mut warnings);
        }
        Err(errors) => findings.extend(errors.iter().map(|error| {
            let code = Code::ConfigInvalid;
            Finding::in_config(plugin, code, error.path(), error.to_string())
        })),
    }
}

/// What the filter will do, as JSON.
fn described(plugin: &PluginConfig) -> serde_json::Value {
    let config = plugin.outcome.as_ref().ok();
    json!({
        "file": plugin.file,
        "resource": plugin.object.as_ref().map(Object::id),
        "good": config.is_some(),
        "meaning": config.map(|config| meaning::words(plugin, config)).unwrap_or_default(),
    })
}

fn text(configs: &[PluginConfig], findings: &[Finding]) -> String {
    let mut lines: Vec<_> = findings.iter().map(Finding::text).collect();
    lines.extend(finding::summary(findings));
    for plugin in configs {
        let name = plugin.object.as_ref().map_or_else(String::new, |object| {
            format!("{}: ", printable(&object.id()))
        });
        let verdict = match &plugin.outcome {
            Ok(_) => styled(GOOD, "the config is good"),
            Err(mistakes) if mistakes.len() == 1 => styled(BAD, "the config has 1 mistake"),
            Err(mistakes) => styled(BAD, &format!("the config has {} mistakes", mistakes.len())),
        };
        lines.push(format!("{}: {name}{verdict}", printable(&plugin.file)));
        if let Ok(config) = &plugin.outcome {
            lines.push(format!("\n{}", styled(TITLE, "The filter")));
            let words = meaning::words(plugin, config);
            lines.extend(
                words
                    .iter()
                    .map(|sentence| format!("  - {}", printable(sentence))),
            );
        }
    }
    lines.join("\n") + "\n"
}

//! `alb-oidc check`: reports mistakes in a plugin config by line and field, or describes what the
//! filter will do. The library validates, `meaning` describes, and `warnings` lists valid settings
//! that are rarely intended.

mod meaning;
mod warnings;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::input::{PluginConfig, Trouble, read_configs};
use crate::output::{BAD, GOOD, LOUD, TITLE, print, printable, styled};
use meaning::words;
use warnings::{Finding, warnings_of_config, warnings_of_resource};

const EXAMPLES: &str = r#"Examples:
  alb-oidc check wasm-plugin.yaml
  alb-oidc check - < wasm-plugin.yaml"#;

/// Check a plugin config, and show what the filter will do with it
///
/// Exit status: 0 if the config is good, 1 if it has mistakes, 2 if it cannot be read.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// A pluginConfig, or the WasmPlugin or TrafficExtension that contains it, in YAML or JSON.
    /// `-`: standard input
    config: PathBuf,
    /// Print JSON: an array with an object for each plugin config
    #[arg(long)]
    json: bool,
}

/// The result for one plugin config.
#[derive(Serialize)]
struct Report {
    file: String,
    resource: Option<String>,
    good: bool,
    mistakes: Vec<Finding>,
    warnings: Vec<Finding>,
    meaning: Vec<String>,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let reports: Vec<_> = read_configs(&self.config)?
            .iter()
            .map(Report::new)
            .collect();
        let text = if self.json {
            let json = serde_json::to_string_pretty(&reports)
                .map_err(|error| Trouble(error.to_string()))?;
            format!("{json}\n")
        } else {
            reports
                .iter()
                .map(Report::text)
                .collect::<Vec<_>>()
                .join("\n")
        };
        print(&text)?;
        Ok(if reports.iter().all(|report| report.good) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

impl Report {
    fn new(plugin: &PluginConfig) -> Self {
        let (mut mistakes, mut warnings, mut meaning) =
            (Vec::new(), warnings_of_resource(plugin), Vec::new());
        match &plugin.outcome {
            Ok(config) => {
                warnings.extend(warnings_of_config(plugin, config));
                meaning = words(plugin, config);
            }
            Err(errors) => {
                mistakes.extend(errors.iter().map(|error| Finding {
                    line: plugin.line(error.path()),
                    field: error.path().to_owned(),
                    message: error.to_string(),
                }));
            }
        }
        mistakes.sort_by_key(|mistake| mistake.line);
        warnings.sort_by_key(|warning| warning.line);
        let good = plugin.outcome.is_ok();
        Self {
            file: plugin.file.clone(),
            resource: plugin.resource.clone(),
            good,
            mistakes,
            warnings,
            meaning,
        }
    }

    fn text(&self) -> String {
        let Self {
            file,
            resource,
            good,
            mistakes,
            warnings,
            meaning,
        } = self;
        let of = |finding: &Finding| format!("{file}:{}: ", finding.line);
        let mut lines: Vec<_> = mistakes
            .iter()
            .map(|mistake| format!("{}{}", of(mistake), printable(&mistake.message)))
            .collect();
        let warning = styled(LOUD, "warning:");
        lines.extend(
            warnings
                .iter()
                .map(|finding| format!("{}{warning} {}", of(finding), printable(&finding.message))),
        );
        let name = resource
            .as_ref()
            .map_or_else(String::new, |resource| format!("{}: ", printable(resource)));
        let verdict = match (good, mistakes.len()) {
            (true, _) => styled(GOOD, "the config is good"),
            (false, 1) => styled(BAD, "the config has 1 mistake"),
            (false, count) => styled(BAD, &format!("the config has {count} mistakes")),
        };
        lines.push(format!("{file}: {name}{verdict}"));
        if *good {
            lines.push(format!("\n{}", styled(TITLE, "The filter")));
            lines.extend(
                meaning
                    .iter()
                    .map(|sentence| format!("  - {}", printable(sentence))),
            );
        }
        lines.join("\n") + "\n"
    }
}

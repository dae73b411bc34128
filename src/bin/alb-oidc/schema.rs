//! `alb-oidc schema`: prints the JSON Schema of the plugin config or of the chart's values. The
//! library makes the former, `make chart` the latter.

use std::process::ExitCode;

use alb_oidc_filter::config_schema;
use clap::Args;
use serde_json::{Value, json};

use crate::input::Trouble;
use crate::output::print;

/// The schema of the chart, which has its `$id` already.
const VALUES: &str = include_str!("../../../istio/chart/values.schema.json");

const EXAMPLES: &str = r#"Examples:
  alb-oidc schema > plugin-config.schema.json
  alb-oidc schema --values > values.schema.json

First line of a file, for editors with the YAML language server:
  # yaml-language-server: $schema=values.schema.json"#;

/// Print the JSON Schema of pluginConfig, or of the chart's values
///
/// Draft 7, for editors and CI. A schema has names, types and bounds; `check` finds more.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Schema {
    /// The schema of the values of istio/chart
    #[arg(long)]
    values: bool,
}

impl Schema {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        if self.values {
            print(VALUES)?;
        } else {
            print(&format!("{:#}\n", plugin_config()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn plugin_config() -> Value {
    let mut schema = config_schema();
    if let Some(members) = schema.as_object_mut() {
        let id = concat!(
            "urn:alb-oidc-filter:plugin-config:",
            env!("CARGO_PKG_VERSION")
        );
        members.insert("$id".to_owned(), json!(id));
        members.insert(
            "$schema".to_owned(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        members.insert("title".to_owned(), json!("pluginConfig of alb-oidc-filter"));
    }
    schema
}

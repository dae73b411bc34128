//! `alb-oidc tenancy`: turns a file of users and groups into Kubeflow's namespaces, as Kubernetes
//! resources. `file` defines the format, `plan` validates it, `resources` builds the output. The
//! library makes user ids and groups.

mod file;
mod plan;
mod resources;

use std::path::PathBuf;
use std::process::ExitCode;

use alb_oidc_filter::Config;
use clap::Args;
use serde_json::Map;
use serde_saphyr::ser_options;

use crate::input::{Document, Trouble, config_of, read_config};
use crate::output::print;
use file::File;
use plan::Plan;

const EXAMPLES: &str = r#"Examples:
  alb-oidc tenancy tenancy.yaml
  alb-oidc tenancy tenancy.yaml --config wasm-plugin.yaml

tenancy.yaml:
  users:
  - user: ann@example.com         # namespace: ann
    contributors: [{user: bob@example.com}]
  groups:
  - group: ml-team                # namespace: ml-team"#;

/// Print Kubeflow's namespaces for users and groups, as Kubernetes resources
///
/// Profiles, and the RoleBindings and AuthorizationPolicies of contributors and groups. The same
/// file always produces the same bytes. Exit status: 0, or 2 if the input has mistakes.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tenancy {
    /// Users, groups and their namespaces, in YAML or JSON. `-`: standard input
    file: PathBuf,
    /// The gateway's pluginConfig, or the WasmPlugin or TrafficExtension that contains it. It maps
    /// the names in the file, which are claims, to user ids and groups. Without it, the names are
    /// user ids
    #[arg(long)]
    config: Option<PathBuf>,
}

impl Tenancy {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let config = self
            .config
            .as_deref()
            .map_or_else(as_written, |path| Ok(read_config(path)?.1))?;
        let document = Document::read(&self.file, "users and groups")?;
        let file: File = serde_path_to_error::deserialize(&document.value).map_err(|error| {
            let field = error.path().to_string();
            // The path of the whole document is `.`.
            Trouble(document.mistake(field.trim_start_matches('.'), &error.inner().to_string()))
        })?;
        let plan = Plan::new(&file, &config.users.identity).map_err(|mistakes| {
            let lines = mistakes
                .iter()
                .map(|(field, what)| document.mistake(field, what));
            Trouble(lines.collect::<Vec<_>>().join("\n"))
        })?;
        let options = ser_options! { prefer_block_scalars: false };
        let text = serde_saphyr::to_string_multiple_with_options(&plan.resources(), options);
        print(&text.map_err(|error| Trouble(error.to_string()))?)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A config that changes no name and has no groups. Only the gateway's own config tells which group
/// headers it strips.
fn as_written() -> Result<Config, Trouble> {
    config_of(Map::new()).map_err(|mistakes| {
        Trouble(
            mistakes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        )
    })
}

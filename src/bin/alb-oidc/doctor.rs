//! `alb-oidc doctor`: judges a live cluster. `collect` reads it, `judge` finds mistakes in the data.

mod cluster;
mod collect;
mod judge;

use std::process::ExitCode;

use clap::Args;

use crate::finding::{self, Finding, Format, report};
use crate::output::print;
use crate::trouble::Trouble;

const EXAMPLES: &str = "\
Examples:
  alb-oidc doctor
  alb-oidc doctor --context production --strict --output json";

/// Find mistakes in a live cluster
///
/// Reads Istio's resources, NetworkPolicies, namespaces and pods, and the metrics of the gateway's
/// pods (pods/proxy), with the kubeconfig of kubectl. Judges the resources as `check` does, and what
/// runs. Changes nothing, and reads no Secrets. docs/operations.md describes each finding by its code.
///
/// Exit status: 0, 1 if there are errors, 2 if the cluster cannot be read.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// The context of the kubeconfig. Without it: the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with status 1 for warnings, too
    #[arg(long)]
    strict: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let runtime = tokio::runtime::Runtime::new()
            .map_err(|error| Trouble(format!("cannot start threads: {error}")))?;
        let mut findings = runtime.block_on(findings(self.context))?;
        finding::sort(&mut findings);
        let verdict = "no mistakes in the cluster";
        print(&report::render(&findings, self.output, verdict))?;
        Ok(finding::exit_code(&findings, self.strict))
    }
}

async fn findings(context: Option<String>) -> Result<Vec<Finding>, Trouble> {
    let client = collect::client(context).await?;
    let mut cluster = collect::collect(&client).await?;
    let live = judge::Live::of(&cluster)?;
    let mut metrics = Vec::new();
    for pod in live.gateway_pods() {
        metrics.push(collect::pod_metrics(&client, &pod.namespace, &pod.name).await);
    }
    cluster.metrics = metrics;
    judge::judge(&cluster)
}

//! `alb-oidc doctor`: judges a live cluster and the answers to a probe. `collect` reads the cluster,
//! `probe` sends requests, `judge` and `answer` find mistakes in the data. Without the cargo feature
//! `doctor`, the command only says how to get it.

#[cfg(feature = "doctor")]
mod answer;
#[cfg(feature = "doctor")]
mod cluster;
#[cfg(feature = "doctor")]
mod collect;
#[cfg(feature = "doctor")]
mod examine;
#[cfg(feature = "doctor")]
mod forgery;
#[cfg(feature = "doctor")]
mod judge;
#[cfg(feature = "doctor")]
mod probe;

use std::process::ExitCode;

use clap::Args;

use crate::finding::Format;
use crate::trouble::Trouble;

const EXAMPLES: &str = "\
Examples:
  alb-oidc doctor
  alb-oidc doctor --context production --strict --output json
  alb-oidc doctor --probe https://kubeflow.example.com/

  kubectl port-forward --namespace istio-system service/istio-ingressgateway 8080:80 &
  alb-oidc doctor --probe http://localhost:8080/ --probe-host kubeflow.example.com";

/// Find mistakes in a live cluster
///
/// Reads Istio's resources, NetworkPolicies, namespaces and pods, and the metrics of the gateway's
/// pods (pods/proxy), with the kubeconfig of kubectl. Judges the resources as `check` does, and what
/// runs. Changes nothing, and reads no Secrets. docs/operations.md describes each finding by its code.
///
/// --probe also sends two GET requests to the gateway, or to the load balancer in front of it. Both
/// must be denied, or redirected to sign in. Without a kubeconfig, doctor only sends the probe.
///
/// Exit status: 0, 1 if there are errors, 2 if the cluster cannot be read or the URL does not answer.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// The context of the kubeconfig. Without it: the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Request this URL without a token, and with a forged token and forged identity headers
    #[arg(long, value_name = "URL")]
    probe: Option<String>,
    /// The Host header of the probe, for a URL of kubectl port-forward
    #[arg(long, value_name = "NAME", requires = "probe")]
    probe_host: Option<String>,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with status 1 for warnings, too
    #[arg(long)]
    strict: bool,
}

#[cfg(feature = "doctor")]
impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        use crate::finding::{self, report};

        let probe = self
            .probe
            .map(|url| probe::Probe::of(&url, self.probe_host.as_deref()))
            .transpose()?;
        let runtime = tokio::runtime::Runtime::new()
            .map_err(|error| Trouble(format!("cannot start threads: {error}")))?;
        let mut found = runtime.block_on(examine::examine(self.context, probe))?;
        finding::sort(&mut found.findings);
        let verdict = if found.has_cluster {
            "no mistakes in the cluster"
        } else {
            "no mistakes in the answers"
        };
        let text = report::render(&found.findings, &found.notes, self.output, verdict);
        crate::output::print(&text)?;
        Ok(finding::exit_code(&found.findings, self.strict))
    }
}

#[cfg(not(feature = "doctor"))]
impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        Err(Trouble(
            "doctor: this build has no cargo feature doctor: run make cli, or take the tool of a release".to_owned(),
        ))
    }
}

//! The order of doctor's work: reads the cluster, judges it, sends the probe, judges the answers.

use super::answer::Outcome;
use super::collect;
use super::forgery;
use super::judge::{self, Live};
use super::probe::Probe;
use crate::finding::{Code, Finding};
use crate::trouble::Trouble;

/// The note after a probe that only the load balancer answered.
const AT_LOAD_BALANCER: &str = "the load balancer answered before the gateway: to see the filter's answer, probe the gateway through kubectl port-forward, with --probe-host";

/// What doctor found.
#[derive(Default)]
pub(super) struct Examination {
    pub(super) findings: Vec<Finding>,
    /// What was seen without being a mistake.
    pub(super) notes: Vec<String>,
    /// Whether there was a cluster to judge.
    pub(super) has_cluster: bool,
}

/// Judges the cluster of the kubeconfig, and the answers to the probe.
///
/// # Errors
/// There is no kubeconfig and no probe; the API server or the URL does not answer; a resource is not
/// valid.
pub(super) async fn examine(
    context: Option<String>,
    probe: Option<Probe>,
) -> Result<Examination, Trouble> {
    let mut examination = Examination::default();
    let needs_cluster = probe.is_none() || context.is_some();
    let mut config = None;
    if let Some(client) = collect::client(context).await? {
        let mut cluster = collect::collect(&client).await?;
        let live = Live::of(&cluster)?;
        let mut metrics = Vec::new();
        for pod in live.gateway_pods() {
            metrics.push(collect::pod_metrics(&client, &pod.namespace, &pod.name).await);
        }
        cluster.metrics = metrics;
        examination.findings = judge::judge(&cluster)?;
        examination.has_cluster = true;
        config = live.into_config();
    } else if needs_cluster {
        return Err(Trouble(
            "kubeconfig: found none, expected ~/.kube/config, or its path in KUBECONFIG".to_owned(),
        ));
    } else {
        let note = "there is no kubeconfig: the cluster was not read";
        examination.notes.push(note.to_owned());
    }
    if let Some(probe) = probe {
        let forged = forgery::headers(config.as_ref())?;
        let answers = [
            ("without a token", probe.send(None).await?),
            ("with forged headers", probe.send(Some(forged)).await?),
        ];
        examination.judge(
            &probe,
            answers.map(|(what, answer)| (what, answer.outcome())),
        );
    }
    Ok(examination)
}

impl Examination {
    /// Adds what the answers to these requests show.
    fn judge(&mut self, probe: &Probe, outcomes: [(&str, Outcome); 2]) {
        let is_load_balancer =
            |(_, outcome): &(&str, Outcome)| matches!(outcome, Outcome::DeniedByLoadBalancer(_));
        let only_load_balancer = outcomes.iter().all(is_load_balancer);
        for (what, outcome) in outcomes {
            let (code, found) = match outcome {
                Outcome::DeniedByLoadBalancer(found) | Outcome::DeniedByGateway(found) => {
                    self.notes.push(format!("probe {what}: {found}"));
                    continue;
                }
                Outcome::Admitted(found) => (Code::LiveProbeAdmitted, found),
                Outcome::Unclear(found) => (Code::LiveProbeUnclear, found),
            };
            let url = probe.shown();
            self.findings.push(Finding {
                code,
                file: "probe".to_owned(),
                line: 1,
                resource: None,
                field: String::new(),
                message: format!(
                    "{url} {what}: found {found}, expected a denial of the filter or the load balancer's sign-in"
                ),
            });
        }
        if only_load_balancer {
            self.notes.push(AT_LOAD_BALANCER.to_owned());
        }
    }
}

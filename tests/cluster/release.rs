//! The chart's release, by Helm.

use crate::istio::NAMESPACE;
use crate::program::{helm, run};
use crate::world::World;
use serde_json::Value;
use tokio::process::Command;

/// The release's name.
const NAME: &str = "alb-oidc";

impl World {
    async fn helm(&self, arguments: &[&str], values: Option<&Value>) -> Result<String, String> {
        let mut helm = Command::new(helm());
        helm.env("KUBECONFIG", &self.kubernetes.kubeconfig)
            .env("HELM_DRIVER", "secret")
            .args(["--namespace", NAMESPACE])
            .args(arguments);
        if values.is_some() {
            helm.arg(support::repository("istio/chart"))
                .args(["--values", "-"]);
        }
        let input = values.map(Value::to_string).unwrap_or_default();
        run(&mut helm, &input).await
    }

    async fn must_helm(&self, arguments: &[&str], values: Option<&Value>) -> String {
        let output = self.helm(arguments, values).await;
        output.unwrap_or_else(|error| panic!("helm {arguments:?}: {error}"))
    }

    pub(crate) async fn install(&self, values: &Value) {
        self.must_helm(&["install", NAME], Some(values)).await;
    }

    pub(crate) async fn upgrade(&self, values: &Value) {
        self.must_helm(&["upgrade", NAME], Some(values)).await;
    }

    pub(crate) async fn rollback(&self, revision: u32) {
        self.must_helm(&["rollback", NAME, &revision.to_string()], None)
            .await;
    }

    pub(crate) async fn uninstall(&self) {
        self.must_helm(&["uninstall", NAME], None).await;
    }
}

/// What the chart renders for these values.
pub(crate) async fn template(values: &Value) -> String {
    let mut helm = Command::new(helm());
    helm.args(["template", NAME, "--namespace", NAMESPACE, "--values", "-"])
        .arg(support::repository("istio/chart"));
    let output = run(&mut helm, &values.to_string()).await;
    output.unwrap_or_else(|error| panic!("helm template: {error}"))
}

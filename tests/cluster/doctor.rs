//! `alb-oidc doctor` on a real API server. The gateway's pod is an object without a kubelet, but its
//! address and its metrics are those of a real Envoy: the API server forwards `pods/proxy` to them.

use crate::istio::{Kind, NAMESPACE};
use crate::world::{BROWSERS, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::process::Command;

/// The chart's release.
const RELEASE: &str = "app.kubernetes.io/instance=alb-oidc";

/// What doctor says in one run.
struct Said {
    status: Option<i32>,
    codes: BTreeSet<String>,
    notes: Vec<String>,
    /// The whole output, for a failed test.
    text: String,
}

impl World {
    async fn doctor(&self, more: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
            .args(["doctor", "--output", "json"])
            .args(more)
            .env("KUBECONFIG", &self.kubernetes.kubeconfig)
            .output()
            .await
            .expect("alb-oidc");
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
        let word = |value: &Value| value.as_str().expect("text").to_owned();
        let codes = list("findings");
        let codes = codes.iter().map(|finding| word(&finding["code"]));
        Said {
            status: output.status.code(),
            // The issuer of the tests ends with EXAMPLE.
            codes: codes.filter(|code| code != "placeholder").collect(),
            notes: list("notes").iter().map(word).collect(),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    /// Runs doctor, which has to find these codes and no other.
    async fn finds(&self, codes: &[&str], more: &[&str]) -> Said {
        let said = self.doctor(more).await;
        let expected = codes.iter().map(|code| (*code).to_owned()).collect();
        assert_eq!(said.codes, expected, "{}", said.text);
        said
    }
}

/// A route at the gateway that writes the user id.
fn writer() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "writer", "namespace": "kubeflow"},
        "spec": {
            "gateways": ["kubeflow-gateway"], "hosts": ["writer.example.com"],
            "http": [{
                "headers": {"request": {"set": {"kubeflow-userid": "root@example.com"}}},
                "route": [{"destination": {"host": "dashboard.kubeflow.svc.cluster.local", "port": {"number": 80}}}],
            }],
        },
    })
}

#[tokio::test]
async fn doctor_finds_faults_in_the_cluster() {
    let world = World::start(&[Kind::Classic]).await;
    let values = world.values(Kind::Classic).await;
    world.install_and_wait(&values).await;
    world.until_admitted().await;
    let kubectl = async |arguments: &[&str]| world.kubernetes.must(arguments, "").await;
    let listener = world.listeners()[0];
    let url = format!("http://{listener}/");
    let probe = ["--probe", &url, "--probe-host", BROWSERS];

    // The mesh of this test has no trusted proxy.
    world.finds(&["live-trusted-proxies"], &[]).await;
    let config = r#"proxy.istio.io/config={"gatewayTopology": {"numTrustedProxies": 1}}"#;
    let pod = Kind::Classic.name();
    kubectl(&["annotate", "pod", pod, "-n", NAMESPACE, config]).await;
    let said = world.finds(&[], &probe).await;
    assert_eq!(said.status, Some(0), "{}", said.text);
    let denials = [
        "probe without a token: 401 of the filter, token-missing",
        "probe with forged headers: 401 of the filter, key-not-found",
    ];
    assert_eq!(said.notes, denials, "{}", said.text);

    let writer = writer().to_string();
    world.kubernetes.apply(&writer).await;
    world.finds(&["live-user-id-written"], &[]).await;
    world.kubernetes.delete(&writer).await;

    let patch = r#"{"spec": {"selector": {"matchLabels": {"istio": "other"}}}}"#;
    let plugin = ["wasmplugin", "alb-oidc", "-n", NAMESPACE, "--type", "merge"];
    kubectl(&[&["patch"], &plugin[..], &["-p", patch]].concat()).await;
    let codes = ["live-gateway-missing", "target-differs"];
    let said = world.finds(&codes, &[]).await;
    assert_eq!(said.status, Some(1), "{}", said.text);

    // Without filter and interlock, the gateway is open.
    kubectl(&["delete", "envoyfilter", "-n", NAMESPACE, "-l", RELEASE]).await;
    world.until(listener, BROWSERS, &[], (200, "")).await;
    let codes = [
        "interlock-missing",
        "live-gateway-missing",
        "live-probe-admitted",
        "target-differs",
    ];
    world.finds(&codes, &probe).await;
}

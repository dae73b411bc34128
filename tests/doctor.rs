//! `alb-oidc doctor` against a stand-in of the API server, which answers GET requests from a table.
//! The unit tests of `judge` cover the findings.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use support::server::{Server, full};
use tempfile::TempDir;

const METRICS: &str = "/api/v1/namespaces/istio-system/pods/gateway-1:15090/proxy/stats/prometheus";

/// The answers, by path and query.
type Answers = BTreeMap<String, (u16, String)>;

/// An API server, and the requests that it received.
struct ApiServer {
    server: Server,
    seen: Arc<Mutex<Vec<(Method, String)>>>,
}

impl ApiServer {
    async fn start(answers: Answers) -> ApiServer {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let answers = Arc::new(answers);
        let server = Server::start(move |request: Request<Incoming>| {
            let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
            async move {
                let path = request.uri().to_string();
                log.lock()
                    .unwrap()
                    .push((request.method().clone(), path.clone()));
                let missing = (404, status(404, "not found"));
                let (code, body) = answers.get(&path).unwrap_or(&missing).clone();
                let mut response = Response::new(full(body));
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok(response)
            }
        })
        .await;
        ApiServer { server, seen }
    }

    async fn doctor(&self, more: &[&str]) -> Output {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("kubeconfig");
        let server = format!("http://{}", self.server.address);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {"token": "x"}}],
        });
        std::fs::write(&file, config.to_string()).expect("a file");
        tokio::process::Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
            .arg("doctor")
            .args(more)
            .env("KUBECONFIG", &file)
            .output()
            .await
            .expect("alb-oidc")
    }
}

fn status(code: u16, message: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message, "reason": "x", "code": code})
        .to_string()
}

fn list(items: &[Value], next: &str) -> (u16, String) {
    let list = json!({"kind": "List", "metadata": {"continue": next}, "items": items});
    (200, list.to_string())
}

/// A cluster with the chart's example and one gateway pod, in two pages of EnvoyFilters.
fn cluster() -> Answers {
    let path = support::repository("istio/kubeflow-cognito.rendered.yaml");
    let text = std::fs::read_to_string(path).expect("the example");
    let resources: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let of_kind = |kind: &str| -> Vec<Value> {
        let of_kind = resources.iter().filter(|resource| resource["kind"] == kind);
        of_kind.cloned().collect()
    };
    let labels = json!({"app": "istio-ingressgateway", "istio": "ingressgateway"});
    // The items of a list of pods have no kind.
    let pod = json!({
        "metadata": {"name": "gateway-1", "namespace": "istio-system", "labels": labels},
        "spec": {"containers": [{"name": "istio-proxy"}]},
        "status": {"phase": "Running"},
    });
    let mut answers = Answers::new();
    let mut put = |path: &str, answer| answers.insert(format!("{path}?limit=500"), answer);
    for (version, plural, kind) in [
        ("extensions.istio.io/v1alpha1", "wasmplugins", "WasmPlugin"),
        ("networking.istio.io/v1", "serviceentries", "ServiceEntry"),
        (
            "networking.istio.io/v1",
            "destinationrules",
            "DestinationRule",
        ),
        (
            "security.istio.io/v1",
            "authorizationpolicies",
            "AuthorizationPolicy",
        ),
    ] {
        put(
            &format!("/apis/{version}/{plural}"),
            list(&of_kind(kind), ""),
        );
    }
    let filters = "/apis/networking.istio.io/v1alpha3/envoyfilters";
    put(filters, list(&[], "a+b"));
    put("/api/v1/pods", list(&[pod], ""));
    answers.insert(
        format!("{filters}?limit=500&continue=a%2Bb"),
        list(&of_kind("EnvoyFilter"), ""),
    );
    let mesh = "defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}";
    answers.insert(
        "/api/v1/namespaces/istio-system/configmaps/istio".to_owned(),
        (200, json!({"data": {"mesh": mesh}}).to_string()),
    );
    let page = "admitted{wasm_filter=\"alb_oidc\"} 1\n";
    answers.insert(METRICS.to_owned(), (200, page.to_owned()));
    answers
}

/// The codes of the findings, without those of the example's placeholders.
fn codes(output: &Output) -> Vec<String> {
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}", String::from_utf8_lossy(&output.stderr));
    });
    let findings = found["findings"].as_array().expect("findings");
    let codes = findings
        .iter()
        .map(|finding| finding["code"].as_str().expect("a code"));
    codes
        .filter(|code| *code != "placeholder")
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn reads_every_page_and_changes_nothing() {
    let api = ApiServer::start(cluster()).await;
    let output = api.doctor(&["--output", "json"]).await;
    assert_eq!(codes(&output), [""; 0]);
    assert_eq!(output.status.code(), Some(0));
    let seen = api.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(method, _)| *method == Method::GET));
    assert!(seen.iter().any(|(_, path)| path == METRICS), "{seen:?}");
    assert!(seen.iter().all(|(_, path)| !path.contains("secrets")));
}

#[tokio::test]
async fn reports_a_gateway_without_the_filter() {
    let mut answers = cluster();
    answers.insert(METRICS.to_owned(), (200, "envoy_server_live{} 1\n".into()));
    let api = ApiServer::start(answers).await;
    let output = api.doctor(&[]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("Pod istio-system/gateway-1") && text.contains("[live-config-rejected]"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn forbidden_parts_are_findings() {
    let mut answers = cluster();
    let forbidden = (403, status(403, "pods is forbidden"));
    answers.insert(METRICS.to_owned(), forbidden.clone());
    let policies = "/apis/networking.k8s.io/v1/networkpolicies?limit=500";
    answers.insert(policies.to_owned(), forbidden);
    let api = ApiServer::start(answers).await;
    let output = api.doctor(&["--output", "json"]).await;
    assert_eq!(codes(&output), ["live-unread", "live-unread"]);
}

#[tokio::test]
async fn unusable_cluster_is_one_line() {
    let api = ApiServer::start(Answers::new()).await;
    for (arguments, says) in [
        (
            &[][..],
            "found neither the filter's extension nor its interlock",
        ),
        (&["--context", "other"], "kubeconfig: "),
    ] {
        let output = api.doctor(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && said.lines().count() == 1, "{said}");
    }
}

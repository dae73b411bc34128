//! `alb-oidc doctor` against a stand-in of the API server, which answers GET requests from a table.
//! `--probe` against Envoy with and without the filter, and against `alb-oidc simulate`. The unit
//! tests of `judge` and `answer` cover the findings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, http_listener, interlock};
use support::key_server::KeyServer;
use support::server::{Server, full};
use support::simulator::Simulator;
use support::tls::{Authority, TlsEnd};
use support::upstream::Upstream;
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
        run(more, &[("KUBECONFIG", &file)]).await
    }
}

/// The output of doctor with these variables, in a home without a kubeconfig.
async fn run(arguments: &[&str], variables: &[(&str, &Path)]) -> Output {
    let home = TempDir::new().expect("a folder");
    tokio::process::Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
        .arg("doctor")
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", home.path())
        .envs(variables.iter().copied())
        .output()
        .await
        .expect("alb-oidc")
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

/// An Envoy with the listeners `filter`, `interlock` and `open`, which has neither of them.
async fn gateway() -> (Envoy, Upstream, KeyServer) {
    let (upstream, keys) = (Upstream::start().await, KeyServer::start().await);
    let route = json!({"route": {"cluster": "upstream"}});
    let listener = |name, filters: &[Value]| http_listener(name, filters, &route, json!({}));
    let setup = Setup {
        plugins: vec![Plugin::new("filter", gateway_config())],
        listeners: vec![
            listener("interlock", &[interlock(&["admitted", "skipped"])]),
            listener("open", &[]),
        ],
        ..Setup::new(
            &support::default_envoy(),
            upstream.address(),
            keys.address(),
        )
    };
    (Envoy::must_start(&setup).await, upstream, keys)
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/pipeline?a=b")
}

/// Exit status, codes and notes of a probe without a cluster.
async fn probe(url: &str) -> (Option<i32>, Vec<String>, Vec<String>) {
    let output = run(&["--probe", url, "--output", "json"], &[]).await;
    let codes = codes(&output);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let notes = found["notes"].as_array().expect("notes").iter();
    let notes = notes.map(|note| note.as_str().expect("text").to_owned());
    (output.status.code(), codes, notes.skip(1).collect())
}

#[tokio::test]
async fn probe_tells_denials_from_an_open_gateway() {
    let (envoy, upstream, _keys) = gateway().await;
    let address = async |name| envoy.listener(name).await.expect("the listener");
    let (none, open) = (Vec::<String>::new(), "live-probe-admitted".to_owned());
    let denials = |found: [&str; 2]| {
        let [missing, forged] = found;
        vec![
            format!("probe without a token: {missing}"),
            format!("probe with forged headers: {forged}"),
        ]
    };
    let by_filter = ["token-missing", "signer-unknown"];
    let by_filter = by_filter.map(|reason| format!("401 of the filter, {reason}"));
    let notes = denials([&by_filter[0], &by_filter[1]]);
    let found = probe(&url(address("filter").await)).await;
    assert_eq!(found, (Some(0), none.clone(), notes));

    let filter = url(address("filter").await);
    let output = run(&["--probe", &filter], &[]).await;
    let expected = format!(
        "there is no kubeconfig: the cluster was not read\n\
         probe without a token: {}\nprobe with forged headers: {}\nno mistakes in the answers\n",
        by_filter[0], by_filter[1]
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let output = run(&["--probe", &filter, "--output", "sarif"], &[]).await;
    let log: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let run = &log["runs"][0]["invocations"][0];
    let notifications = run["toolExecutionNotifications"].as_array();
    let said = &notifications.expect("notes")[1]["message"]["text"];
    assert_eq!(
        said,
        &json!(format!("probe without a token: {}", by_filter[0]))
    );

    // The filter would have answered first.
    let unclear = "live-probe-unclear".to_owned();
    let found = probe(&url(address("interlock").await)).await;
    assert_eq!(found, (Some(0), vec![unclear; 2], none.clone()));
    assert_eq!(upstream.take_seen().len(), 0);

    let found = probe(&url(address("open").await)).await;
    assert_eq!(found, (Some(1), vec![open; 2], none.clone()));

    let simulator = Simulator::start(address("filter").await, &[]).await;
    let (status, codes, notes) = probe(&simulator.url("/pipeline")).await;
    assert_eq!((status, codes), (Some(0), none));
    let redirect = "302 of the load balancer, to sign in at localhost";
    assert_eq!(notes[..2], denials([redirect; 2]));
    assert!(notes[2].contains("kubectl port-forward"), "{notes:?}");
    envoy.stop().await;
}

#[tokio::test]
async fn probe_sends_two_requests() {
    let (envoy, upstream, _keys) = gateway().await;
    let open = url(envoy.listener("open").await.expect("the listener"));
    let api = ApiServer::start(cluster()).await;
    let arguments = ["--probe", &open, "--probe-host", "kubeflow.example.com"];
    let output = api.doctor(&arguments).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("[live-probe-admitted]").count(), 2, "{text}");
    let seen = upstream.take_seen();
    let [missing, forged] = seen.as_slice() else {
        panic!("{} requests", seen.len());
    };
    for request in [missing, forged] {
        assert_eq!(request.path, "/pipeline?a=b");
        assert_eq!(request.header("host"), ["kubeflow.example.com"]);
        assert_eq!(request.header("accept"), ["application/json"]);
    }
    let user = ["alb-oidc-doctor@probe.invalid"];
    for name in [
        "kubeflow-userid",
        "kubeflow_userid",
        "kubeflow.userid",
        "x-amzn-oidc-identity",
    ] {
        assert_eq!(missing.header(name), [""; 0], "{name}");
        assert_eq!(forged.header(name), user, "{name}");
    }
    assert_eq!(missing.header("x-amzn-oidc-data"), [""; 0]);
    // The token names the load balancer of the cluster's config: only its key is wrong.
    let token = forged.header("x-amzn-oidc-data").concat();
    let header = URL_SAFE.decode(token.split('.').next().expect("a header"));
    let header: Value = serde_json::from_slice(&header.expect("base64")).expect("JSON");
    let plugins = "/apis/extensions.istio.io/v1alpha1/wasmplugins?limit=500";
    let plugins: Value = serde_json::from_str(&cluster()[plugins].1).expect("JSON");
    let trusted = &plugins["items"][0]["spec"]["pluginConfig"]["loadBalancers"][0];
    assert_eq!(header["signer"], trusted["arn"]);
    assert_eq!(header["client"], trusted["clientId"]);
    envoy.stop().await;
}

#[tokio::test]
async fn probe_follows_no_redirect() {
    let requests = Arc::new(Mutex::new(0));
    let count = Arc::clone(&requests);
    let server = Server::start(move |_: Request<Incoming>| {
        let count = Arc::clone(&count);
        async move {
            *count.lock().unwrap() += 1;
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            let target = "https://kubeflow.example.com/".parse().unwrap();
            response.headers_mut().insert("location", target);
            Ok(response)
        }
    })
    .await;
    let (status, codes, _) = probe(&url(server.address)).await;
    assert_eq!(
        (status, codes),
        (Some(0), vec!["live-probe-unclear".to_owned(); 2])
    );
    assert_eq!(*requests.lock().unwrap(), 2);
}

#[tokio::test]
async fn probe_verifies_certificates() {
    let upstream = Upstream::start().await;
    let authority = Authority::generate();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = TlsEnd::start(&authority, "localhost", any, upstream.address()).await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).expect("a file");
    let url = format!("https://localhost:{}/", server.address.port());
    let output = run(&["--probe", &url], &[("SSL_CERT_FILE", &file)]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("found 200"), "{text}");

    std::fs::write(&file, Authority::generate().pem()).expect("a file");
    let plain = format!("https://localhost:{}/", upstream.address().port());
    for (url, says) in [
        (url.as_str(), "certificate"),
        (&plain, ""),
        ("http://127.0.0.1:1/", "refused"),
        ("kubeflow.example.com", "expected a URL such as"),
    ] {
        let output = run(&["--probe", url], &[("SSL_CERT_FILE", &file)]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{said}"
        );
        assert!(said.contains(says) && said.lines().count() == 1, "{said}");
        assert!(said.starts_with("alb-oidc: --probe"), "{said}");
    }
}

#[tokio::test]
async fn needs_a_kubeconfig_without_a_probe() {
    let (upstream, missing) = (
        Upstream::start().await,
        Path::new("/nonexistent/kubeconfig"),
    );
    let url = url(upstream.address());
    for (arguments, variables) in [
        (&[][..], &[][..]),
        (&["--probe", &url, "--context", "production"], &[]),
        // A file that the user names has to exist.
        (&["--probe", &url], &[("KUBECONFIG", missing)]),
    ] {
        let output = run(arguments, variables).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("alb-oidc: kubeconfig: "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(upstream.take_seen().len(), 0);
}

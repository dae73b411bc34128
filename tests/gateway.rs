//! `envoy/gateway` on Envoy Gateway: its own translation of the manifests, by the program in
//! `tests/envoy-gateway`, runs in a real Envoy. What [`Files`] edits is where things are:
//! addresses, ports and files. No Kubernetes and no controller runs here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::envoy::{Envoy, Setup};
use support::parties::{KEY_SERVER, Parties, spoofed, walk};
use support::repository;
use support::tls::Authority;

const MANIFESTS: &str = "envoy/gateway/alb-oidc.yaml";
/// The service behind the routes.
const SERVICE: (&str, u16) = ("192.0.2.10", 80);
/// Envoy Gateway's name of the listener.
const LISTENER: &str = "gateways/alb/http";
/// The interlock's answer.
const SHUT: (u16, &str) = (403, "RBAC: access denied");

/// A namespace, its service, and two routes to it. A tenant owns the second one.
const ROUTES: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: apps, labels: {gateway: alb}}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: apps}
spec: {clusterIP: 192.0.2.10, ports: [{name: http, port: 80, targetPort: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: apps}
spec:
  parentRefs: [{name: alb, namespace: gateways}]
  rules: [{backendRefs: [{name: app, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: tenant, namespace: apps}
spec:
  parentRefs: [{name: alb, namespace: gateways}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /tenant}}]
    backendRefs: [{name: app, port: 80}]
"#;

/// A tenant's own extension. Envoy Gateway puts it in place of the Gateway's.
const TENANT_EXTENSION: &str = r#"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: tenant, namespace: apps}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: tenant}]
  lua: [{type: Inline, inline: "function envoy_on_request(handle) end"}]
"#;

/// External authorization on a route: a filter that reads identity headers.
const AUTHORIZATION: &str = r#"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: tenant, namespace: apps}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: tenant}]
  extAuth: {http: {backendRefs: [{name: app, port: 80}]}}
"#;

/// The documents of the manifests, without those of one kind.
fn manifests_without(kind: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(MANIFESTS)).expect(MANIFESTS);
    let all: Vec<String> = text.split("\n---\n").map(str::to_owned).collect();
    let left: Vec<String> = all
        .iter()
        .filter(|text| !text.contains(&format!("\nkind: {kind}\n")))
        .cloned()
        .collect();
    assert_eq!(
        left.len() + usize::from(!kind.is_empty()),
        all.len(),
        "{kind}"
    );
    left
}

/// The secret that Envoy Gateway's installation makes: Envoy's certificate for its control plane.
fn control_plane_secret() -> String {
    let authority = Authority::generate();
    let (certificate, key) = authority.issue("envoy");
    let data = json!({
        "ca.crt": STANDARD.encode(authority.pem()),
        "tls.crt": STANDARD.encode(certificate),
        "tls.key": STANDARD.encode(key),
    });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "envoy", "namespace": "envoy-gateway-system"},
        "data": data,
    })
    .to_string()
}

/// What Envoy Gateway makes of the documents and of [`ROUTES`].
fn translate(mut documents: Vec<String>) -> Value {
    documents.extend([ROUTES.to_owned(), control_plane_secret()]);
    let program = std::env::var_os("ALB_OIDC_TRANSLATE").map_or_else(
        || repository("target/envoy-gateway/translate"),
        PathBuf::from,
    );
    let mut process = Command::new(&program)
        // The module's checksum, which Envoy compares when it downloads the module.
        .arg("0".repeat(64))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: run `make test-gateway`", program.display()));
    let mut stdin = process.stdin.take().expect("its input");
    stdin
        .write_all(documents.join("\n---\n").as_bytes())
        .expect("its input");
    drop(stdin);
    let output = process.wait_with_output().expect("its output");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The xDS resources of one type.
fn resources<'a>(translated: &'a Value, kind: &str) -> &'a [Value] {
    let all = translated["Resources"].as_object().expect("resources");
    let found = all.iter().find(|(name, _)| name.ends_with(kind));
    found.map_or(&[], |(_, found)| found.as_array().expect("a list"))
}

/// The file with the endpoints of a cluster.
fn endpoints_of(cluster: &str) -> String {
    format!("endpoints-{}", cluster.replace('/', "-"))
}

/// The translation as files in a folder, in place of a control plane.
struct Files<'a>(&'a Parties);

impl Files<'_> {
    /// A file, as Envoy names a source of resources.
    fn source(&self, name: &str) -> Value {
        json!({"path_config_source": {"path": self.0.file(name)}, "resource_api_version": "V3"})
    }

    /// Points `value` to the parties and the files.
    fn point(&self, value: &mut Value) {
        self.0.point(value, SERVICE);
        walk(value, &mut |object| {
            for (name, file) in [("config_source", "routes"), ("sds_config", "secrets")] {
                if let Some(source) = object.get_mut(name) {
                    *source = self.source(file);
                }
            }
            if let Some(service) = object.get("service_name").and_then(Value::as_str) {
                object["eds_config"] = self.source(&endpoints_of(service));
            }
        });
    }

    /// Writes the resources of one type.
    fn write(&self, name: &str, resources: &[Value], kind: &str) {
        let mut resources = resources.to_vec();
        for resource in &mut resources {
            self.point(resource);
            resource["@type"] = json!(format!("type.googleapis.com/{kind}"));
        }
        let response = json!({"version_info": "1", "resources": resources});
        std::fs::write(self.0.file(name), response.to_string()).expect(name);
    }

    /// Writes all resources. Returns the bootstrap.
    fn write_all(&self, translated: &Value) -> Value {
        for (name, kind) in [
            ("listeners", "envoy.config.listener.v3.Listener"),
            ("routes", "envoy.config.route.v3.RouteConfiguration"),
            ("clusters", "envoy.config.cluster.v3.Cluster"),
            (
                "secrets",
                "envoy.extensions.transport_sockets.tls.v3.Secret",
            ),
        ] {
            self.write(name, resources(translated, kind), kind);
        }
        // Envoy takes the endpoints of one cluster from a file.
        let kind = "envoy.config.endpoint.v3.ClusterLoadAssignment";
        for endpoints in resources(translated, kind) {
            let name = endpoints["cluster_name"].as_str().expect("a name");
            self.write(&endpoints_of(name), std::slice::from_ref(endpoints), kind);
        }
        let mut bootstrap = translated["Bootstrap"].clone();
        self.point(&mut bootstrap);
        bootstrap["node"]["id"] = json!("test");
        bootstrap["node"]["cluster"] = json!("test");
        bootstrap["dynamic_resources"] = json!({
            "lds_config": self.source("listeners"),
            "cds_config": self.source("clusters"),
        });
        // The control plane's server.
        let clusters = bootstrap["static_resources"]["clusters"]
            .as_array_mut()
            .expect("clusters");
        clusters.retain(|cluster| cluster["name"] != "xds_cluster");
        bootstrap
    }
}

/// An Envoy with the translation, and the parties around it.
struct World {
    envoy: Envoy,
    gateway: SocketAddr,
    parties: Parties,
    /// For messages.
    name: String,
}

impl World {
    async fn start(binary: &Path, translated: &Value, key_server: &str) -> World {
        let parties = Parties::start(key_server).await;
        let setup = Setup {
            bootstrap: Some(Files(&parties).write_all(translated)),
            ..Setup::new(binary, parties.upstream.address(), parties.keys.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        let gateway = envoy.listener(LISTENER).await;
        World {
            gateway: gateway.unwrap_or_else(|| panic!("{}", envoy.log())),
            envoy,
            parties,
            name: format!("[envoy {}]", support::version(binary)),
        }
    }

    /// The status, the body, and the user id with which the request reached the service.
    async fn ask(&self, path: &str, token: Option<&str>) -> (u16, String, Option<String>) {
        let (reply, user) = self.parties.ask(self.gateway, &spoofed(path, token)).await;
        (reply.status, reply.body, user)
    }
}

/// The filters of the gateway's listener, in order.
fn filters(translated: &Value) -> Vec<String> {
    let listeners = resources(translated, ".Listener");
    let found = listeners.iter().find(|one| one["name"] == LISTENER);
    let chain = &found.expect("the listener")["default_filter_chain"];
    let filters = chain["filters"][0]["typed_config"]["http_filters"].as_array();
    let name = |filter: &Value| filter["name"].as_str().expect("a name").to_owned();
    filters.expect("filters").iter().map(name).collect()
}

#[tokio::test]
async fn translation_passes_the_core_rows() {
    let translated = translate(manifests_without(""));
    for envoy in support::envoys() {
        let world = World::start(&envoy, &translated, KEY_SERVER).await;
        let (parties, gateway) = (&world.parties, world.gateway);
        let routes = ["/", "/tenant"];
        parties.pass_core_rows(gateway, &routes, &world.name).await;
        let mut alias = spoofed("/", Some(&parties.token()));
        let underscore = ("kubeflow_userid".into(), "root@example.com".into());
        alias.headers.push(underscore);
        let (reply, _) = parties.ask(gateway, &alias).await;
        assert_eq!(reply.status, 400, "{}", world.name);
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn interlock_denies_requests_without_the_filter() {
    let translated = translate(manifests_without("EnvoyExtensionPolicy"));
    for envoy in support::envoys() {
        let world = World::start(&envoy, &translated, KEY_SERVER).await;
        let token = world.parties.token();
        for path in ["/", "/tenant", "/public/", "/logout"] {
            let (status, body, user) = world.ask(path, Some(&token)).await;
            assert_eq!((status, body.as_str()), SHUT, "{} {path}", world.name);
            assert_eq!(user, None, "{} {path}", world.name);
        }
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn interlock_denies_a_route_with_its_own_extension() {
    let mut documents = manifests_without("");
    documents.push(TENANT_EXTENSION.to_owned());
    let translated = translate(documents);
    let mut open = manifests_without("EnvoyPatchPolicy");
    open.push(TENANT_EXTENSION.to_owned());
    let open = translate(open);
    for envoy in support::envoys() {
        let world = World::start(&envoy, &translated, KEY_SERVER).await;
        let (status, body, user) = world.ask("/tenant", None).await;
        assert_eq!((status, body.as_str()), SHUT, "{}", world.name);
        assert_eq!(user, None, "{}", world.name);
        let token = world.parties.token();
        let (status, body, user) = world.ask("/", Some(&token)).await;
        assert_eq!(status, 200, "{} {body}", world.name);
        assert_eq!(user.as_deref(), Some("ann@example.com"), "{}", world.name);
        world.envoy.stop().await;

        // Without the interlock, the tenant's route is open to a spoofed identity.
        let world = World::start(&envoy, &open, KEY_SERVER).await;
        let (status, body, user) = world.ask("/tenant", None).await;
        assert_eq!(status, 200, "{} {body}", world.name);
        assert_eq!(user.as_deref(), Some("root@example.com"), "{}", world.name);
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn rejects_key_server_with_another_name() {
    let translated = translate(manifests_without(""));
    for envoy in support::envoys() {
        let world = World::start(&envoy, &translated, "keys.example.com").await;
        let token = world.parties.token();
        let (status, body, user) = world.ask("/", Some(&token)).await;
        assert_eq!(status, 503, "{} {body}", world.name);
        assert!(body.contains("key-unavailable"), "{} {body}", world.name);
        assert_eq!(user, None, "{}", world.name);
        assert!(world.parties.keys.fetches().is_empty(), "{}", world.name);
        world.envoy.stop().await;
    }
}

#[test]
fn accepts_every_policy() {
    let translated = translate(manifests_without(""));
    let policies = translated["Policies"].as_array().expect("policies");
    let mut kinds = Vec::new();
    for policy in policies {
        for ancestor in policy["Status"]["ancestors"].as_array().expect("ancestors") {
            for condition in ancestor["conditions"].as_array().expect("conditions") {
                assert_eq!(condition["status"], "True", "{policy:#}");
            }
            kinds.push(policy["Kind"].as_str().expect("a kind"));
        }
    }
    kinds.sort_unstable();
    let expected = [
        "ClientTrafficPolicy",
        "EnvoyExtensionPolicy",
        "EnvoyPatchPolicy",
    ];
    assert_eq!(kinds, expected, "{policies:#?}");
}

#[test]
fn reports_an_interlock_without_a_listener() {
    let renamed: Vec<String> = manifests_without("")
        .iter()
        .map(|text| text.replace("  - name: http #", "  - name: web #"))
        .collect();
    let translated = translate(renamed);
    let policies = translated["Policies"].as_array().expect("policies");
    let interlock = policies
        .iter()
        .find(|policy| policy["Kind"] == "EnvoyPatchPolicy")
        .expect("the interlock");
    let conditions = interlock["Status"]["ancestors"][0]["conditions"].as_array();
    let programmed = conditions
        .expect("conditions")
        .iter()
        .find(|condition| condition["type"] == "Programmed")
        .expect("its state");
    assert_eq!(programmed["status"], "False", "{programmed:#}");
    assert_eq!(programmed["reason"], "ResourceNotFound", "{programmed:#}");
}

#[test]
fn places_the_filter_first_and_the_interlock_last() {
    let mut documents = manifests_without("");
    documents.push(AUTHORIZATION.to_owned());
    documents.push(TENANT_EXTENSION.to_owned());
    let filters = filters(&translate(documents));
    let names: Vec<_> = filters
        .iter()
        .map(|name| name.split('/').next().expect("a name"))
        .collect();
    let expected = [
        "envoy.filters.http.health_check",
        "envoy.filters.http.wasm",
        "envoy.filters.http.ext_authz",
        "envoy.filters.http.lua",
        "alb-oidc-interlock",
        "envoy.filters.http.router",
    ];
    assert_eq!(names, expected);
}

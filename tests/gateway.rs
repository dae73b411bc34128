//! `envoy/gateway` on Envoy Gateway: its own translation of the manifests, by the program in
//! `tests/envoy-gateway`, runs in a real Envoy. What [`World::start`] edits is where things are:
//! addresses, ports and files. No Kubernetes and no controller runs here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::client::{Reply, Request, send, send_upgrade};
use support::envoy::{Envoy, Setup};
use support::key_server::{Answer, KeyServer};
use support::repository;
use support::tls::{Authority, TlsEnd};
use support::token::{Key, TokenSpec};
use support::upstream::{Seen, Upstream};
use tempfile::TempDir;

const MANIFESTS: &str = "envoy/gateway/alb-oidc.yaml";
const KEY_SERVER: &str = "public-keys.auth.elb.us-west-2.amazonaws.com";
const SIGN_OUT: &str = "https://example.auth.us-west-2.amazoncognito.com/logout";
/// The service behind the routes.
const SERVICE: &str = "192.0.2.10";
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

/// Applies `edit` to each object in `value`, outer ones first.
fn walk(value: &mut Value, edit: &mut impl FnMut(&mut Value)) {
    if value.is_object() {
        edit(value);
    }
    match value {
        Value::Object(members) => members.values_mut().for_each(|member| walk(member, edit)),
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, edit)),
        _ => {}
    }
}

/// The file with the endpoints of a cluster.
fn endpoints_of(cluster: &str) -> String {
    format!("endpoints-{}", cluster.replace('/', "-"))
}

/// Where the parts of a gateway are in this test.
struct Places {
    folder: PathBuf,
    upstream: SocketAddr,
    keys: SocketAddr,
}

impl Places {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Points `value` to this test's places. Nothing else changes.
    fn edit(&self, value: &mut Value) {
        walk(value, &mut |object| {
            // The module: a file, in place of the controller's server of modules.
            if object.get("code").is_some() && object.get("runtime").is_some() {
                object["code"] = json!({"local": {"filename": support::module()}});
            }
            // The control plane: files, in place of its server.
            for (name, file) in [("config_source", "routes"), ("sds_config", "secrets")] {
                if let Some(source) = object.get_mut(name) {
                    *source = self.source(file);
                }
            }
            if let Some(service) = object.get("service_name").and_then(Value::as_str) {
                object["eds_config"] = self.source(&endpoints_of(service));
            }
            // Authorities: the public ones, and the control plane's.
            if let Some(authority) = object.get_mut("trusted_ca") {
                authority["filename"] = json!(self.file("authority.pem"));
            }
            let Some(address) = object.get_mut("socket_address") else {
                return;
            };
            let place = match address["address"].as_str() {
                Some(KEY_SERVER) => self.keys,
                Some(SERVICE) => self.upstream,
                // Envoy's own listeners.
                _ => SocketAddr::from(([127, 0, 0, 1], 0)),
            };
            address["address"] = json!(place.ip().to_string());
            address["port_value"] = json!(place.port());
        });
    }

    /// A file of the control plane, as Envoy names one.
    fn source(&self, name: &str) -> Value {
        json!({"path_config_source": {"path": self.file(name)}, "resource_api_version": "V3"})
    }

    /// Writes that file: the resources of one type.
    fn write(&self, name: &str, resources: &[Value], kind: &str) {
        let mut resources = resources.to_vec();
        for resource in &mut resources {
            self.edit(resource);
            resource["@type"] = json!(format!("type.googleapis.com/{kind}"));
        }
        let response = json!({"version_info": "1", "resources": resources});
        std::fs::write(self.file(name), response.to_string()).expect(name);
    }

    /// Writes all of them.
    fn write_all(&self, translated: &Value) {
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
    }

    fn bootstrap(&self, translated: &Value) -> Value {
        let mut bootstrap = translated["Bootstrap"].clone();
        self.edit(&mut bootstrap);
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
    version: String,
    envoy: Envoy,
    upstream: Upstream,
    keys: KeyServer,
    key_server: TlsEnd,
    _folder: TempDir,
}

impl World {
    async fn start(binary: &Path, translated: &Value, key_server: &str) -> World {
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let authority = Authority::generate();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let key_server = TlsEnd::start(&authority, key_server, any, keys.address()).await;
        let folder = tempfile::Builder::new()
            .prefix("alb-oidc-gateway-")
            .tempdir()
            .expect("a temporary folder");
        let places = Places {
            folder: folder.path().into(),
            upstream: upstream.address(),
            keys: key_server.address,
        };
        std::fs::write(places.file("authority.pem"), authority.pem()).expect("the authority");
        places.write_all(translated);
        let setup = Setup {
            bootstrap: Some(places.bootstrap(translated)),
            ..Setup::new(binary, upstream.address(), keys.address())
        };
        World {
            version: support::version(binary),
            envoy: Envoy::must_start(&setup).await,
            upstream,
            keys,
            key_server,
            _folder: folder,
        }
    }

    async fn address(&self) -> SocketAddr {
        let address = self.envoy.listener(LISTENER).await;
        address.unwrap_or_else(|| panic!("[envoy {}] {}", self.version, self.envoy.log()))
    }

    /// The answer, and the user id with which the request reached upstream, if it did.
    async fn ask(&self, request: &Request) -> (Reply, Option<String>) {
        let reply = send(self.address().await, request).await;
        let reply = reply.unwrap_or_else(|error| panic!("[envoy {}] {error}", self.version));
        let user = |seen: &Seen| seen.header("kubeflow-userid").join(",");
        (reply, self.upstream.take_seen().first().map(user))
    }

    /// A token of ann@example.com, signed with a key that the key server has.
    fn token(&self) -> String {
        let signer = self.keys.signer(Answer::default());
        let spec = TokenSpec::of("ann@example.com");
        spec.mint(&signer.kid, &signer.key).text
    }

    /// The same, signed with another key.
    fn forged(&self) -> String {
        let signer = self.keys.signer(Answer::default());
        let spec = TokenSpec::of("ann@example.com");
        spec.mint(&signer.kid, &Key::generate()).text
    }
}

/// A request with a spoofed identity, and with this token.
fn request(path: &str, token: Option<&str>) -> Request {
    let spoofed = [
        ("host", "kubeflow.example.com"),
        ("kubeflow-userid", "root@example.com"),
    ];
    let token = token.map(|token| ("x-amzn-oidc-data", token));
    let headers: Vec<_> = spoofed.into_iter().chain(token).collect();
    Request::get(path, &headers)
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
        let (token, forged) = (world.token(), world.forged());
        let forgery = "signature-invalid";
        for (path, token, status, says, user) in [
            ("/", Some(&token), 200, "", Some("ann@example.com")),
            ("/tenant", Some(&token), 200, "", Some("ann@example.com")),
            ("/", None, 401, "token-missing", None),
            ("/tenant", None, 401, "token-missing", None),
            ("/", Some(&forged), 401, forgery, None),
            ("/tenant", Some(&forged), 401, forgery, None),
            // Skipped: it reaches upstream without the spoofed identity.
            ("/public/", None, 200, "", Some("")),
            ("/logout", Some(&token), 302, "", None),
            ("/healthz/alb", None, 200, "", None),
        ] {
            let (reply, seen) = world.ask(&request(path, token.map(String::as_str))).await;
            let what = format!("[envoy {}] {path}: {}", world.version, reply.body);
            assert_eq!(reply.status, status, "{what}");
            assert!(reply.body.contains(says), "{what}");
            assert_eq!(seen.as_deref(), user, "{what}");
            let location = (status == 302).then_some(SIGN_OUT);
            let locations: Vec<_> = location.into_iter().collect();
            assert_eq!(reply.header("location"), locations, "{what}");
        }
        let mut alias = request("/", Some(&token));
        alias
            .headers
            .push(("kubeflow_userid".into(), "root".into()));
        let (reply, seen) = world.ask(&alias).await;
        assert_eq!(
            (reply.status, seen),
            (400, None),
            "[envoy {}]",
            world.version
        );
        let mut upgrade = request("/tenant/socket", Some(&token));
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
            upgrade.headers.push((name.into(), value.into()));
        }
        let upgraded = send_upgrade(world.address().await, &upgrade).await;
        assert_eq!(upgraded.expect("an answer").0.status, 101);
        assert_eq!(
            world.upstream.seen_at("/tenant/socket"),
            ["ann@example.com"]
        );
        assert_eq!(
            world.key_server.names().first().expect("a fetch"),
            KEY_SERVER
        );
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn interlock_denies_requests_without_the_filter() {
    let translated = translate(manifests_without("EnvoyExtensionPolicy"));
    for envoy in support::envoys() {
        let world = World::start(&envoy, &translated, KEY_SERVER).await;
        let token = world.token();
        for path in ["/", "/tenant", "/public/", "/logout"] {
            let (reply, seen) = world.ask(&request(path, Some(&token))).await;
            let what = format!("[envoy {}] {path}", world.version);
            assert_eq!((reply.status, reply.body.as_str()), SHUT, "{what}");
            assert_eq!(seen, None, "{what}");
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
        let what = format!("[envoy {}]", world.version);
        let (reply, seen) = world.ask(&request("/tenant", None)).await;
        assert_eq!((reply.status, reply.body.as_str()), SHUT, "{what}");
        assert_eq!(seen, None, "{what}");
        let (reply, seen) = world.ask(&request("/", Some(&world.token()))).await;
        assert_eq!(reply.status, 200, "{what} {}", reply.body);
        assert_eq!(seen.as_deref(), Some("ann@example.com"), "{what}");
        world.envoy.stop().await;

        // Without the interlock, the tenant's route is open to a spoofed identity.
        let world = World::start(&envoy, &open, KEY_SERVER).await;
        let (reply, seen) = world.ask(&request("/tenant", None)).await;
        assert_eq!(reply.status, 200, "{what} {}", reply.body);
        assert_eq!(seen.as_deref(), Some("root@example.com"), "{what}");
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn rejects_key_server_with_another_name() {
    let translated = translate(manifests_without(""));
    for envoy in support::envoys() {
        let world = World::start(&envoy, &translated, "keys.example.com").await;
        let (reply, seen) = world.ask(&request("/", Some(&world.token()))).await;
        let what = format!("[envoy {}] {}", world.version, reply.body);
        assert_eq!(reply.status, 503, "{what}");
        assert!(reply.body.contains("key-unavailable"), "{what}");
        assert_eq!(seen, None, "{what}");
        assert!(world.keys.fetches().is_empty(), "{what}");
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

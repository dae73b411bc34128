//! A cluster with Istio, gateways, key servers and an upstream: everything but the filter's
//! release, which a test installs, changes and removes by Helm.

use crate::filter_chains::{filter_chains, is_interlocked};
use crate::istio::{ControlPlane, Gateway, Kind, NAMESPACE, TCP_PORT, TLS_PORT};
use crate::kubernetes::Kubernetes;
use crate::prober::MARK;
use crate::program::{Running, START_UP, built, run};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::access_token::AccessTokenSpec;
use support::client::{Reply, Request, send};
use support::key_server::{Answer, KeyServer, Signer};
use support::tls::{Authority, PlainEnd, TlsEnd};
use support::token::{ARN, CLIENT, ISSUER, TokenSpec};
use support::upstream::{Seen, Upstream};
use tempfile::TempDir;
use tokio::process::Command;

/// The load balancers' key server.
pub(crate) const KEY_SERVER: &str = "public-keys.auth.elb.us-west-2.amazonaws.com";
/// The user pool's key server.
const JWKS_SERVER: &str = "cognito-idp.us-west-2.amazonaws.com";
/// The key that signs access tokens.
const POOL_KEY: &str = "pool-key";
/// The one machine client that the release accepts.
pub(crate) const MACHINE: &str = "7machine123456789";
/// The host of browser users.
pub(crate) const BROWSERS: &str = "kubeflow.example.com";
/// The host of machine clients.
pub(crate) const MACHINES: &str = "machines.example.com";
/// What Envoy's RBAC filter answers: for a policy of Istio's, and for the interlock.
pub(crate) const DENIED_BY_POLICY: &str = "RBAC: access denied";

const API_SERVER: u16 = 6443;
const REGISTRY: &str = "127.0.0.1:5000";
/// The Services of the cluster, which the upstream stands for.
const SERVICES: [(&str, &str, u16); 5] = [
    ("dashboard", "kubeflow", 80),
    ("ml-pipeline", "kubeflow", 8888),
    ("argocd-server", "argocd", 80),
    ("kube-web-view", "kube-web-view", 80),
    ("grafana", "monitoring", 80),
];

/// A token of the load balancer for this user.
pub(crate) fn mint(signer: &Signer, user: &str) -> String {
    TokenSpec::of(user).mint(&signer.kid, &signer.key).text
}

fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
}

/// Kubeflow's policy that allows every request to its gateway.
pub(crate) fn allow_all(kind: Kind) -> Value {
    let mut spec = kind.target();
    spec["action"] = json!("ALLOW");
    spec["rules"] = json!([{}]);
    policy(kind.name(), spec)
}

/// A gateway, its control plane, and everything that they talk to.
pub(crate) struct World {
    pub(crate) gateways: Vec<(Kind, Gateway)>,
    control_plane: ControlPlane,
    pub(crate) kubernetes: Kubernetes,
    pub(crate) keys: KeyServer,
    pub(crate) tls: TlsEnd,
    _jwks: TlsEnd,
    upstream: Upstream,
    /// Requests of the prober that arrived.
    probes: Mutex<Vec<Seen>>,
    pub(crate) signer: Arc<Signer>,
    registry: Running,
    authority: Authority,
    /// Leads to the classic gateway's first HTTPS server.
    https: PlainEnd,
    folder: TempDir,
}

/// The certificate of the classic gateway's HTTPS servers, and the right to read it.
fn gateway_certificate(authority: &Authority) -> [Value; 3] {
    let (certificate, key) = authority.issue("*.example.com");
    let metadata = json!({"name": "gateway-certificate", "namespace": NAMESPACE});
    let group = "rbac.authorization.k8s.io";
    [
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata,
            "stringData": {"tls.crt": certificate, "tls.key": key},
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch", "list"]}],
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "gateway-certificate"},
            "subjects": [{"kind": "ServiceAccount", "name": Kind::Classic.name()}],
        }),
    ]
}

impl World {
    /// Starts everything, with these gateways.
    pub(crate) async fn start(kinds: &[Kind]) -> World {
        World::with_key_server(kinds, KEY_SERVER).await
    }

    /// The same with a key server whose certificate has this name.
    pub(crate) async fn with_key_server(kinds: &[Kind], certified: &str) -> World {
        assert!(
            std::env::var_os("ALB_OIDC_SANDBOX").is_some(),
            "run `make test-cluster`: this test changes /etc/hosts and /etc/ssl/certs"
        );
        let folder = tempfile::Builder::new()
            .prefix("alb-oidc-cluster-")
            .tempdir()
            .expect("a temporary folder");
        std::fs::write(
            "/etc/hosts",
            format!(
                "127.0.0.1 localhost\n127.0.0.1 {}\n127.0.0.2 {KEY_SERVER}\n127.0.0.3 {JWKS_SERVER}\n",
                crate::istio::CONTROL_PLANE
            ),
        )
        .expect("/etc/hosts written");
        let (keys, upstream, authority) = (
            KeyServer::start().await,
            Upstream::start_at(([192, 0, 2, 100], 0)).await,
            Authority::generate(),
        );
        std::fs::write("/etc/ssl/certs/ca-certificates.crt", authority.pem())
            .expect("the authority's certificate written");
        let https = |last| SocketAddr::from(([127, 0, 0, last], 443));
        let tls = TlsEnd::start(&authority, certified, https(2), keys.address()).await;
        let jwks = TlsEnd::start(&authority, JWKS_SERVER, https(3), keys.address()).await;
        let signer = Signer::new();
        keys.publish(&signer.path(), &signer.key, Answer::default());
        let path = ISSUER.split_once(JWKS_SERVER).expect("the pool's host").1;
        keys.publish_set(
            &format!("{path}/.well-known/jwks.json"),
            POOL_KEY,
            Answer::key_set(),
        );

        let server = SocketAddr::from(([127, 0, 0, 1], TLS_PORT));
        let https = PlainEnd::start(&authority, BROWSERS, server).await;

        let registry = Running::start(
            "crane",
            folder.path(),
            Command::new(built("crane")).args(["registry", "serve", "--address", REGISTRY]),
        );
        let kubernetes = Kubernetes::start(folder.path(), API_SERVER).await;
        let control_plane = ControlPlane::start(folder.path(), &kubernetes).await;
        let world = World {
            gateways: Vec::new(),
            control_plane,
            kubernetes,
            keys,
            tls,
            _jwks: jwks,
            upstream,
            probes: Mutex::default(),
            signer: Arc::new(signer),
            registry,
            authority,
            https,
            folder,
        };
        world.kubernetes.apply(&world.applications()).await;
        let mut gateways = Vec::new();
        for kind in kinds {
            let gateway = Gateway::start(world.folder.path(), &world.kubernetes, *kind).await;
            gateways.push((*kind, gateway));
        }
        let world = World { gateways, ..world };
        for listener in world.listeners() {
            world.until_it_listens(listener).await;
        }
        world
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every address that accepts requests without TLS.
    pub(crate) fn listeners(&self) -> Vec<SocketAddr> {
        let mut listeners = Vec::new();
        for (kind, _) in &self.gateways {
            let ports = kind.listeners().iter();
            listeners.extend(ports.map(|port| SocketAddr::from(([127, 0, 0, 1], *port))));
            if *kind == Kind::Classic {
                listeners.push(self.https.address);
            }
        }
        listeners
    }

    async fn until_it_listens(&self, listener: SocketAddr) {
        let deadline = Instant::now() + START_UP;
        while tokio::net::TcpStream::connect(listener).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "nothing listens at {listener}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// The last lines that each part wrote.
    pub(crate) fn logs(&self) -> String {
        let gateways = self.gateways.iter().map(|(_, gateway)| gateway.log());
        self.registry.log() + &self.control_plane.log() + &gateways.collect::<String>()
    }

    /// What a cluster with Kubeflow has: Services, gateways, a route for every host, and the
    /// policies that deny what no policy allows.
    fn applications(&self) -> String {
        let mut objects = Vec::new();
        for namespace in ["argocd", "kube-web-view", "monitoring"] {
            objects.push(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            );
        }
        let upstream = self.upstream.address();
        for (name, namespace, port) in SERVICES {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
                "spec": {"ports": [{"name": "http", "port": port, "targetPort": upstream.port()}]},
            }));
            objects.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "endpoints": [{"addresses": [upstream.ip().to_string()]}],
                "ports": [{"name": "http", "port": upstream.port()}],
            }));
        }
        let mut servers: Vec<Value> = Kind::Classic
            .listeners()
            .iter()
            .map(|port| json!({"port": {"number": port, "name": format!("http-{port}"), "protocol": "HTTP"}, "hosts": ["*"]}))
            .collect();
        servers.push(
            json!({"port": {"number": TCP_PORT, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}),
        );
        servers.extend(["com", "org"].map(|name| {
            json!({
                "port": {"number": TLS_PORT, "name": format!("https-{name}"), "protocol": "HTTPS"},
                "hosts": [format!("*.example.{name}")],
                "tls": {"mode": "SIMPLE", "credentialName": "gateway-certificate"},
            })
        }));
        objects.push(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "kubeflow-gateway", "namespace": "kubeflow"},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": servers},
        }));
        objects.push(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "dashboard", "namespace": "kubeflow"},
            "spec": {
                "gateways": ["kubeflow-gateway"], "hosts": ["*"],
                "http": [{"route": [{"destination": {"host": "dashboard.kubeflow.svc.cluster.local", "port": {"number": 80}}}]}],
                "tcp": [{"match": [{"port": TCP_PORT}], "route": [{"destination": {"host": "grafana.monitoring.svc.cluster.local", "port": {"number": 80}}}]}],
            },
        }));
        let listeners: Vec<Value> = Kind::GatewayApi
            .listeners()
            .iter()
            .map(|port| json!({"name": format!("http-{port}"), "port": port, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}))
            .collect();
        objects.push(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "kubeflow", "namespace": NAMESPACE},
            "spec": {"gatewayClassName": "istio", "listeners": listeners},
        }));
        objects.push(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "dashboard", "namespace": "kubeflow"},
            "spec": {"parentRefs": [{"name": "kubeflow", "namespace": NAMESPACE}], "rules": [{"backendRefs": [{"name": "dashboard", "port": 80}]}]},
        }));
        objects.push(policy("global-deny-all", json!({})));
        objects.push(allow_all(Kind::Classic));
        objects.extend(gateway_certificate(&self.authority));
        let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
        texts.join("\n---\n")
    }

    /// The filter's module, with these bytes added to make it another image, in the registry.
    pub(crate) async fn push_image(&self, added: &[u8]) -> String {
        let mut module = std::fs::read(support::module()).expect("the module");
        if !added.is_empty() {
            // A custom section: its id, its size, the size of its name, its name.
            let size = u8::try_from(added.len()).expect("a short name");
            module.extend([0, size + 1, size]);
            module.extend(added);
        }
        let folder = self.folder.path();
        std::fs::write(folder.join("plugin.wasm"), module).expect("the module written");
        let mut tar = Command::new("tar");
        tar.current_dir(folder);
        run(tar.args(["-cf", "layer.tar", "plugin.wasm"]), "")
            .await
            .expect("a layer");
        let deadline = Instant::now() + START_UP;
        loop {
            let mut crane = Command::new(built("crane"));
            crane.current_dir(folder);
            crane.args(["append", "--oci-empty-base", "-f", "layer.tar", "-t"]);
            match run(crane.arg(format!("{REGISTRY}/alb-oidc-filter:test")), "").await {
                Ok(pushed) => return format!("oci://{}", pushed.trim()),
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "no image pushed: {error}\n{}",
                    self.logs()
                ),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Values of a release for this gateway, with machine clients.
    pub(crate) async fn values(&self, kind: Kind) -> Value {
        let gateway = match kind {
            Kind::Classic => {
                json!({"istioGateways": ["kubeflow/kubeflow-gateway"], "tcpPorts": [TCP_PORT]})
            }
            Kind::GatewayApi => json!({"name": "kubeflow", "allowPolicy": true}),
        };
        json!({
            "image": {"url": self.push_image(b"").await},
            "gateway": gateway,
            "pluginConfig": {
                "loadBalancers": [{"arn": ARN, "issuer": ISSUER, "clientId": CLIENT}],
                "groups": {"claims": ["custom:groups"], "memberHeaderPrefix": "x-kubeflow-group-"},
                "logout": {
                    "path": "/oauth2/sign_out",
                    "redirectTo": "https://kubeflow.auth.us-west-2.amazoncognito.com/logout?client_id=1example23456789",
                },
            },
            "machineClients": {"enabled": true, "host": MACHINES, "clientIds": [MACHINE]},
            "routes": [{"host": "argocd.example.com", "service": {"name": "argocd-server", "namespace": "argocd", "port": 80}}],
        })
    }

    pub(crate) fn token(&self, user: &str) -> String {
        mint(&self.signer, user)
    }

    pub(crate) fn token_of(&self, spec: &TokenSpec) -> String {
        spec.mint(&self.signer.kid, &self.signer.key).text
    }

    /// An `authorization` header with an access token.
    pub(crate) fn bearer(&self, spec: &AccessTokenSpec) -> String {
        format!("Bearer {}", spec.mint(POOL_KEY, &self.signer.key))
    }

    /// A GET, and what of it reached upstream.
    pub(crate) async fn ask(
        &self,
        to: SocketAddr,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (Reply, Vec<Seen>) {
        let headers = [&[("host", host)], headers].concat();
        self.send(to, &Request::get(path, &headers)).await
    }

    /// A CORS preflight, and what of it reached upstream.
    pub(crate) async fn preflight(
        &self,
        to: SocketAddr,
        host: &str,
        headers: &[(&str, &str)],
    ) -> (Reply, Vec<Seen>) {
        let own = [
            ("host", host),
            ("origin", "https://app.example.com"),
            ("access-control-request-method", "POST"),
        ];
        let request = Request::get("/", &[&own[..], headers].concat());
        let method = "OPTIONS".into();
        self.send(to, &Request { method, ..request }).await
    }

    async fn send(&self, to: SocketAddr, request: &Request) -> (Reply, Vec<Seen>) {
        let reply = send(to, request)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        (reply, self.take_seen())
    }

    /// What arrived since the last call, without the prober's requests.
    fn take_seen(&self) -> Vec<Seen> {
        let seen = self.upstream.take_seen();
        let (probes, seen): (Vec<_>, Vec<_>) = seen
            .into_iter()
            .partition(|seen| !seen.header(MARK).is_empty());
        self.probes.lock().expect("the probes").extend(probes);
        seen
    }

    /// The prober's requests that arrived since the last call.
    pub(crate) fn take_probes(&self) -> Vec<Seen> {
        self.take_seen();
        std::mem::take(&mut *self.probes.lock().expect("the probes"))
    }

    /// A request that is admitted. Returns it as it reached upstream.
    pub(crate) async fn admitted(
        &self,
        to: SocketAddr,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Seen {
        let (reply, mut seen) = self.ask(to, host, path, headers).await;
        assert_eq!(
            reply.status,
            200,
            "{host}{path}: {}\n{}",
            reply.body,
            self.logs()
        );
        assert_eq!(seen.len(), 1, "{host}{path}");
        seen.remove(0)
    }

    /// A request that is denied with this status, and with this in the answer.
    pub(crate) async fn denied(
        &self,
        to: SocketAddr,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        (status, because): (u16, &str),
    ) {
        let (reply, seen) = self.ask(to, host, path, headers).await;
        assert_eq!(
            reply.status,
            status,
            "{host}{path}: {}\n{}",
            reply.body,
            self.logs()
        );
        assert!(
            reply.body.contains(because),
            "{host}{path}: {because} is not in {}",
            reply.body
        );
        assert!(seen.is_empty(), "{host}{path}: {seen:?}");
    }

    /// Waits until a request is answered with this status, and with this in the answer. The
    /// upstream answers with the request that it received.
    pub(crate) async fn until(
        &self,
        to: SocketAddr,
        host: &str,
        headers: &[(&str, &str)],
        (status, text): (u16, &str),
    ) {
        let deadline = Instant::now() + START_UP;
        let headers = [&[("host", host)], headers].concat();
        let request = Request::get("/", &headers);
        loop {
            let answer = match send(to, &request).await {
                Ok(reply) if reply.status == status && reply.body.contains(text) => break,
                Ok(reply) => format!("{} {}", reply.status, reply.body),
                Err(error) => error,
            };
            assert!(
                Instant::now() < deadline,
                "{to} {host}: {answer}, expected {status} {text}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.take_seen();
    }

    /// Waits until each listener admits a genuine request.
    pub(crate) async fn until_admitted(&self) {
        self.until_genuine((200, "ann@example.com")).await;
    }

    /// Waits until the interlock denies a genuine request at each listener.
    pub(crate) async fn until_shut(&self) {
        self.until_genuine((403, DENIED_BY_POLICY)).await;
    }

    async fn until_genuine(&self, answer: (u16, &str)) {
        for listener in self.listeners() {
            let token = self.token("ann@example.com");
            let headers = [("x-amzn-oidc-data", token.as_str())];
            self.until(listener, BROWSERS, &headers, answer).await;
        }
    }

    /// Waits until the interlock is in each filter chain.
    pub(crate) async fn until_interlocked(&self) {
        let deadline = Instant::now() + START_UP;
        for (kind, gateway) in &self.gateways {
            while !filter_chains(&gateway.admin("/config_dump").await)
                .iter()
                .all(is_interlocked)
            {
                assert!(
                    Instant::now() < deadline,
                    "{kind:?}: no interlock\n{}",
                    self.logs()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Installs a release, and waits until the interlock and the filter are in the gateway.
    pub(crate) async fn install_and_wait(&self, values: &Value) {
        self.install(values).await;
        self.until_interlocked().await;
        for listener in self.listeners() {
            let missing = (401, "token-missing");
            self.until(listener, BROWSERS, &[], missing).await;
        }
    }

    pub(crate) fn gateway(&self, kind: Kind) -> &Gateway {
        let found = self.gateways.iter().find(|(of, _)| *of == kind);
        &found.expect("the gateway").1
    }
}

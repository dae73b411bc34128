//! The manifests of `istio/` in Istio's own hands: kustomize renders them, istioctl checks them,
//! pilot-discovery reads them from a stand-in for Kubernetes (without any, 1.31 does not start),
//! and pilot-agent starts an Envoy as in an ingress gateway's pod, which has everything it knows
//! from there: the module out of an OCI image, the key server by TLS. So with what `alb-oidc
//! tenancy` prints. `make test-istio` builds Istio and runs this; `make test` does not. Nothing
//! here may configure Envoy: only what a user writes may.

use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::access_token::{AccessTokenSpec, fill_in_keys};
use support::client::{Reply, Request, send};
use support::key_server::{Answer, KeyServer};
use support::kubernetes::Kubernetes;
use support::tls::{Authority, TlsEnd};
use support::token::{ARN, CLIENT, ISSUER, Key, Signature, TokenSpec};
use support::upstream::{Seen, Upstream};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// From the start of Istio's parts until the gateway is ready, on a busy machine.
const START_UP: Duration = Duration::from_secs(60);
/// What the ServiceEntry calls the key server.
const KEY_SERVER: &str = "public-keys.auth.elb.us-west-2.amazonaws.com";
/// The key that signs access tokens.
const POOL_KEY: &str = "pool-key";
/// The one machine client that the policy lists.
const MACHINE: &str = "7machine123456789";
/// What Istio answers where a policy denies.
const DENIED_BY_POLICY: &str = "RBAC: access denied";

/// One of Istio's programs, as `make test-istio` leaves them.
fn program(name: &str) -> PathBuf {
    let path = support::repository("target/istio").join(name);
    assert!(
        path.exists(),
        "no {}: run `make test-istio`, which builds it",
        path.display()
    );
    path
}

/// Runs a program to its end and gives what it printed.
async fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("its input");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes())
        .await
        .expect("the input written");
    drop(stdin);
    let output = child.wait_with_output().await.expect("its end");
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() {
        Ok(out.into_owned())
    } else {
        Err(format!("{out}{error}"))
    }
}

/// Runs `alb-oidc`.
async fn alb_oidc(arguments: &[&str]) -> String {
    let said = run(Path::new(env!("CARGO_BIN_EXE_alb-oidc")), arguments, "").await;
    said.unwrap_or_else(|error| panic!("alb-oidc {}: {error}", arguments.join(" ")))
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// A copy of `istio/` with a user's values, and what a cluster has beside it.
struct Install {
    folder: TempDir,
    /// Components of `install/kustomization.yaml` before the values.
    overlays: Vec<String>,
    /// Resources beside the manifests.
    beside: String,
    /// Patches of a user's own, as a kustomization has them.
    patches: String,
    image: String,
    arn: String,
}

impl Install {
    fn new(overlays: &[&str]) -> Install {
        let folder = tempfile::Builder::new()
            .prefix("alb-oidc-istio-")
            .tempdir()
            .expect("a temporary folder");
        let mut copy = std::process::Command::new("cp");
        copy.arg("-r")
            .arg(support::repository("istio"))
            .arg(folder.path());
        assert!(
            copy.status().is_ok_and(|status| status.success()),
            "istio/ copied"
        );
        Install {
            folder,
            overlays: overlays
                .iter()
                .map(|overlay| format!("../overlays/{overlay}"))
                .collect(),
            beside: "{}".into(),
            patches: String::new(),
            image: "registry.example.com/alb-oidc-filter@sha256:0000".into(),
            arn: ARN.into(),
        }
    }

    /// The manifests as `kubectl apply -k istio/install` would have them.
    async fn render(&self) -> Result<String, String> {
        let istio = self.folder.path().join("istio");
        let write = |file: &str, text: String| {
            std::fs::write(istio.join(file), text).expect("a file written")
        };
        let values = json!({
            "image": self.image,
            "arn": self.arn,
            "issuer": ISSUER,
            "clientId": CLIENT,
            "signOutUrl": "https://kubeflow.auth.us-west-2.amazoncognito.com/logout?client_id=1example23456789",
            "domain": "example.com",
            "gateway": "kubeflow-gateway",
        });
        // Only what stands under `data` is the user's.
        let example = std::fs::read_to_string(istio.join("install/values.example.yaml"))
            .expect("the example");
        let head = example.split_once("\ndata:").expect("its data").0;
        write("install/values.yaml", format!("{head}\ndata: {values}\n"));
        write("install/beside.yaml", self.beside.clone());
        let beside = if self.beside == "{}" {
            ""
        } else {
            ", beside.yaml"
        };
        let components = [&self.overlays[..], &["../values".into(), "../own".into()]]
            .concat()
            .join(", ");
        write(
            "install/kustomization.yaml",
            format!(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
                 resources: [../base, values.yaml{beside}]\ncomponents: [{components}]\n"
            ),
        );
        std::fs::create_dir_all(istio.join("own")).expect("a folder");
        let patches = if self.patches.is_empty() {
            " []"
        } else {
            &self.patches
        };
        write(
            "own/kustomization.yaml",
            format!(
                "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:{patches}\n"
            ),
        );
        let install = istio.join("install");
        run(
            &program("kustomize"),
            &["build", install.to_str().expect("a path")],
            "",
        )
        .await
    }
}

/// A gateway, and all that it talks to.
struct World {
    install: Install,
    /// Istio's control plane, the gateway's agent and with it Envoy, the registry: ended when
    /// dropped.
    running: Vec<Child>,
    kubernetes: Option<Kubernetes>,
    gateway: SocketAddr,
    keys: KeyServer,
    tls: TlsEnd,
    upstream: Upstream,
    kid: String,
    key: Key,
}

/// A service of the cluster, which the upstream stands for.
fn service(host: &str, port: u16, upstream: SocketAddr) -> String {
    let name = host.split('.').next().expect("a name");
    let upstream = upstream.port();
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: istio-system}}
spec:
  hosts: [{host}]
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{http: {upstream}}}}}]
"
    )
}

/// What Kubeflow has: its gateway and a route for every host.
fn kubeflow(port: u16) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: kubeflow-gateway, namespace: kubeflow}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: dashboard, namespace: kubeflow}}
spec:
  gateways: [kubeflow-gateway]
  hosts: ['*']
  http: [{{route: [{{destination: {{host: dashboard.kubeflow.svc.cluster.local, port: {{number: 80}}}}}}]}}]
"
    )
}

/// What a user would change to have the key server elsewhere, with its own authority.
fn key_server_elsewhere(port: u16, authority: &Path) -> String {
    let authority = authority.display();
    format!(
        "
- target: {{kind: ServiceEntry, name: alb-public-keys}}
  patch: |-
    - {{op: replace, path: /spec/resolution, value: STATIC}}
    - {{op: add, path: /spec/endpoints, value: [{{address: 127.0.0.1, ports: {{https: {port}}}}}]}}
- target: {{kind: DestinationRule, name: alb-public-keys}}
  patch: |-
    - {{op: add, path: /spec/trafficPolicy/tls/caCertificates, value: {authority}}}"
    )
}

impl World {
    /// Starts everything with these overlays, with what a user adds, and a key server that answers
    /// as `certified`.
    async fn start(overlays: &[&str], beside: &str, patches: &str, certified: &str) -> World {
        let (keys, upstream, authority) = (
            KeyServer::start().await,
            Upstream::start().await,
            Authority::generate(),
        );
        let tls = TlsEnd::start(&authority, certified, keys.address()).await;
        let (kid, key) = (uuid::Uuid::new_v4().to_string(), Key::generate());
        keys.publish(&format!("/{kid}"), &key, Answer::default());
        let mut install = Install::new(overlays);
        let file = |name: &str| install.folder.path().join(name);
        std::fs::write(file("authority.pem"), authority.pem()).expect("the authority's file");
        let port = free_port();
        install.patches = key_server_elsewhere(tls.address.port(), &file("authority.pem"))
            + &patches.replace("PORT", &port.to_string());
        install.beside = kubeflow(port) + beside;
        for (host, port) in [
            ("dashboard.kubeflow.svc.cluster.local", 80),
            ("ml-pipeline.kubeflow.svc.cluster.local", 8888),
            ("argocd-server.argocd.svc.cluster.local", 80),
            ("kube-web-view.kube-web-view.svc.cluster.local", 80),
            ("grafana.monitoring.svc.cluster.local", 80),
        ] {
            install.beside += &service(host, port, upstream.address());
        }
        let gateway = SocketAddr::from(([127, 0, 0, 1], port));
        let mut world = World {
            install,
            running: Vec::new(),
            kubernetes: None,
            gateway,
            keys,
            tls,
            upstream,
            kid,
            key,
        };
        world.serve_image().await;
        let rendered = world
            .install
            .render()
            .await
            .expect("the manifests rendered");
        let control_plane = world.start_control_plane(&rendered).await;
        world.start_gateway(control_plane).await;
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.install.folder.path().join(name)
    }

    /// Starts a program that runs on, with its output in a file of its own.
    fn spawn(&mut self, name: &str, command: &mut Command) {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log file");
        let child = command
            .current_dir(self.install.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        self.running.push(child);
    }

    /// The last lines that Istio's parts wrote.
    fn logs(&self) -> String {
        let log = |name: &str| {
            let text = std::fs::read(self.path(&format!("{name}.log"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            format!(
                "--- {name}\n{}\n",
                lines[lines.len().saturating_sub(60)..].join("\n")
            )
        };
        ["crane", "pilot-discovery", "pilot-agent"]
            .map(log)
            .concat()
    }

    /// Puts the module into an image of one layer, as `make image` does, and the image into a
    /// registry.
    async fn serve_image(&mut self) {
        let port = free_port();
        let crane = program("crane");
        let address = format!("127.0.0.1:{port}");
        self.spawn(
            "crane",
            Command::new(&crane).args(["registry", "serve", "--address", &address]),
        );
        std::fs::copy(support::module(), self.path("plugin.wasm")).expect("the module copied");
        let layer = self.path("layer.tar");
        let folder = self
            .install
            .folder
            .path()
            .to_str()
            .expect("a path")
            .to_owned();
        let layer = layer.to_str().expect("a path").to_owned();
        run(
            Path::new("tar"),
            &["-C", &folder, "-cf", &layer, "plugin.wasm"],
            "",
        )
        .await
        .expect("a layer");
        let image = format!("{address}/alb-oidc-filter");
        let deadline = Instant::now() + START_UP;
        self.install.image = loop {
            match run(
                &crane,
                &[
                    "append",
                    "--oci-empty-base",
                    "-f",
                    &layer,
                    "-t",
                    &format!("{image}:test"),
                ],
                "",
            )
            .await
            {
                Ok(pushed) => break pushed.trim().to_owned(),
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "no image pushed: {error}\n{}",
                    self.logs()
                ),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
    }

    /// Starts pilot-discovery, which finds these manifests in Kubernetes. Gives its xDS port.
    async fn start_control_plane(&mut self, manifests: &str) -> u16 {
        let parse = |document| serde_saphyr::from_str(document).expect("YAML");
        let kubernetes = Kubernetes::start(manifests.split("\n---\n").map(parse).collect()).await;
        let cluster = json!({"name": "test", "cluster": {"server": format!("http://{}", kubernetes.address())}});
        let context = json!({"name": "test", "context": {"cluster": "test", "user": "test"}});
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test", "clusters": [cluster], "contexts": [context],
            "users": [{"name": "test", "user": {}}],
        });
        self.kubernetes = Some(kubernetes);
        std::fs::write(self.path("kubeconfig"), kubeconfig.to_string()).expect("the kubeconfig");
        std::fs::write(self.path("mesh.yaml"), "accessLogFile: ''\n").expect("the mesh's file");
        let [xds, http, monitoring] = [free_port(), free_port(), free_port()];
        let at = |port: u16| format!("127.0.0.1:{port}");
        let (xds_at, http, monitoring) = (at(xds), at(http), at(monitoring));
        let arguments = [
            "discovery",
            "--kubeconfig",
            "kubeconfig",
            "--meshConfig",
            "mesh.yaml",
            "--grpcAddr",
            &xds_at,
            "--httpAddr",
            &http,
            "--monitoringAddr",
            &monitoring,
            "--httpsAddr",
            "",
            "--secureGRPCAddr",
            "",
            "--ctrlz_port",
            "0",
        ];
        let environment = [
            ("POD_NAMESPACE", "istio-system"),
            // The stand-in has lists and watches, not both in one.
            ("KUBE_FEATURE_WatchListClient", "false"),
            // Nothing is written there, addresses of services neither.
            ("PILOT_ENABLE_IP_AUTOALLOCATE", "false"),
            // No certificates are needed here, and no sidecars injected.
            ("ENABLE_CA_SERVER", "false"),
            ("PILOT_CERT_PROVIDER", "none"),
            ("INJECT_ENABLED", "false"),
            // Filters of Istio's own Envoy, which others do not have; neither has to do with ours.
            ("PILOT_ENABLE_ALPN_FILTER", "false"),
            ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
        ];
        self.spawn(
            "pilot-discovery",
            Command::new(program("pilot-discovery"))
                .args(arguments)
                .envs(environment),
        );
        xds
    }

    /// Starts pilot-agent as in the pod of an ingress gateway, and waits until Envoy is ready.
    async fn start_gateway(&mut self, control_plane: u16) {
        let [admin, status, probe, prometheus] =
            [free_port(), free_port(), free_port(), free_port()];
        let proxy = json!({
            "discoveryAddress": format!("127.0.0.1:{control_plane}"),
            "controlPlaneAuthPolicy": "NONE",
            "binaryPath": support::default_envoy().canonicalize().expect("Envoy's path"),
            "proxyBootstrapTemplatePath": program("envoy_bootstrap.json"),
            "configPath": "./etc/istio/proxy",
            "proxyAdminPort": admin,
            "statusPort": status,
            "concurrency": 1,
        });
        let labels = json!({"istio": "ingressgateway", "gateway.networking.k8s.io/gateway-name": "kubeflow-gateway"});
        let environment = [
            ("PROXY_CONFIG", proxy.to_string()),
            ("POD_NAME", "istio-ingressgateway-0".into()),
            ("POD_NAMESPACE", "istio-system".into()),
            ("INSTANCE_IP", "192.0.2.1".into()),
            ("SERVICE_ACCOUNT", "istio-ingressgateway".into()),
            ("ISTIO_META_CLUSTER_ID", "Kubernetes".into()),
            ("ISTIO_METAJSON_LABELS", labels.to_string()),
            ("FILE_MOUNTED_CERTS", "true".into()),
            ("ENVOY_STATUS_PORT", probe.to_string()),
            ("ENVOY_PROMETHEUS_PORT", prometheus.to_string()),
        ];
        // In namespaces of its own: it keeps modules in /var/lib/istio, and when it is killed Envoy
        // is to end with it.
        let mut agent = Command::new("unshare");
        agent.args([
            "--map-root-user",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
        ]);
        agent.arg(
            "mount -t tmpfs none /var/lib && mkdir -p /var/lib/istio/data && exec \"$0\" \"$@\"",
        );
        agent.arg(program("pilot-agent")).args([
            "proxy",
            "router",
            "--domain",
            "istio-system.svc.cluster.local",
        ]);
        self.spawn("pilot-agent", agent.envs(environment));
        let (status, deadline) = (
            SocketAddr::from(([127, 0, 0, 1], status)),
            Instant::now() + START_UP,
        );
        let ready = Request::get("/healthz/ready", &[("host", "agent")]);
        while !send(status, &ready)
            .await
            .is_ok_and(|reply| reply.status == 200)
            || !self.listens().await
        {
            assert!(
                Instant::now() < deadline,
                "the gateway is not ready\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn listens(&self) -> bool {
        tokio::net::TcpStream::connect(self.gateway).await.is_ok()
    }

    fn token(&self, spec: &TokenSpec) -> String {
        spec.mint(&self.kid, &self.key).text
    }

    fn bearer(&self, spec: &AccessTokenSpec) -> String {
        format!("Bearer {}", spec.mint(POOL_KEY, &self.key))
    }

    /// A GET, and what of it reached upstream.
    async fn ask(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> (Reply, Vec<Seen>) {
        self.send(&Request::get(path, &[&[("host", host)], headers].concat()))
            .await
    }

    /// A CORS preflight, and what of it reached upstream.
    async fn preflight(&self, host: &str, headers: &[(&str, &str)]) -> (Reply, Vec<Seen>) {
        let own = [
            ("host", host),
            ("origin", "https://app.example.com"),
            ("access-control-request-method", "POST"),
        ];
        let request = Request::get("/", &[&own[..], headers].concat());
        self.send(&Request {
            method: "OPTIONS".into(),
            ..request
        })
        .await
    }

    async fn send(&self, request: &Request) -> (Reply, Vec<Seen>) {
        let reply = send(self.gateway, request)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        (reply, self.upstream.take_seen())
    }

    /// A request that is let pass. Gives what reached upstream.
    async fn admitted(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Seen {
        let (reply, mut seen) = self.ask(host, path, headers).await;
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
    async fn denied(
        &self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        status: u16,
        because: &str,
    ) {
        let (reply, seen) = self.ask(host, path, headers).await;
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
}

#[tokio::test]
async fn kubeflow_sees_the_user_of_the_token_and_no_other() {
    let policy = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-mallory, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules: [{when: [{key: 'request.headers[kubeflow-userid]', values: [mallory@example.com]}]}]
";
    let world = World::start(&["kubeflow"], policy, "", KEY_SERVER).await;
    let host = "kubeflow.example.com";
    let ann = world.token(&TokenSpec::of("ann@example.com"));

    world.denied(host, "/", &[], 401, "token-missing").await;
    world
        .denied(
            host,
            "/",
            &[("kubeflow-userid", "ann@example.com")],
            401,
            "token-missing",
        )
        .await;
    let stranger = TokenSpec {
        header: [(
            "signer".to_owned(),
            json!(ARN.replace("123456789012", "210987654321")),
        )]
        .into_iter()
        .collect(),
        ..TokenSpec::default()
    };
    world
        .denied(
            host,
            "/",
            &[("x-amzn-oidc-data", &world.token(&stranger))],
            401,
            "signer-unknown",
        )
        .await;
    assert!(
        world.keys.fetches().is_empty(),
        "no key is fetched for those"
    );

    let seen = world
        .admitted(host, "/", &[("x-amzn-oidc-data", &ann)])
        .await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    assert!(
        seen.header("x-amzn-oidc-data").is_empty(),
        "the token goes no further"
    );
    assert_eq!(world.keys.fetches().len(), 1);
    assert_eq!(world.keys.fetches()[0].host, KEY_SERVER);
    assert_eq!(world.tls.names(), [KEY_SERVER], "by TLS, and by that name");

    let forged = TokenSpec {
        signature: Signature::OtherKey,
        ..TokenSpec::default()
    };
    world
        .denied(
            host,
            "/",
            &[("x-amzn-oidc-data", &world.token(&forged))],
            401,
            "signature-invalid",
        )
        .await;

    let spoofed = [
        ("x-amzn-oidc-data", ann.as_str()),
        ("kubeflow-userid", "bob@example.com"),
        ("x-kubeflow-group-admins", "true"),
    ];
    let seen = world.admitted(host, "/", &spoofed).await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    assert!(
        seen.header("x-kubeflow-group-admins").is_empty(),
        "{seen:?}"
    );

    let mallory = world.token(&TokenSpec::of("mallory@example.com"));
    world
        .denied(
            host,
            "/",
            &[("x-amzn-oidc-data", &mallory)],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    let unmasked = [
        ("x-amzn-oidc-data", mallory.as_str()),
        ("kubeflow-userid", "ann@example.com"),
    ];
    world
        .denied(host, "/", &unmasked, 403, DENIED_BY_POLICY)
        .await;

    let (reply, seen) = world.ask(host, "/oauth2/sign_out", &[]).await;
    assert_eq!(reply.status, 302, "{}", reply.body);
    assert!(
        reply.header("location")[0]
            .starts_with("https://kubeflow.auth.us-west-2.amazoncognito.com/logout?")
    );
    assert!(seen.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn report_mode_opens_the_gateway_only_without_the_policy() {
    let report = "
- target: {kind: WasmPlugin, name: alb-oidc}
  patch: |-
    - {op: add, path: /spec/pluginConfig/mode, value: report}";
    let host = "kubeflow.example.com";
    let world = World::start(&["kubeflow"], "", report, KEY_SERVER).await;
    world.denied(host, "/", &[], 403, DENIED_BY_POLICY).await;
    world
        .denied(
            host,
            "/",
            &[("kubeflow-userid", "ann@example.com")],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    let ann = world.token(&TokenSpec::of("ann@example.com"));
    let seen = world
        .admitted(host, "/", &[("x-amzn-oidc-data", &ann)])
        .await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    drop(world);

    let deleted = "
- target: {kind: AuthorizationPolicy, name: alb-oidc-require-user}
  patch: |-
    $patch: delete
    kind: AuthorizationPolicy
    metadata: {name: alb-oidc-require-user}";
    let world = World::start(&["kubeflow"], "", &[report, deleted].concat(), KEY_SERVER).await;
    let seen = world
        .admitted(host, "/", &[("kubeflow-userid", "ann@example.com")])
        .await;
    assert!(seen.header("kubeflow-userid").is_empty(), "{seen:?}");
}

#[tokio::test]
async fn without_the_filter_any_user_id_gets_past_the_policy_and_nothing_past_a_gateway_that_is_shut()
 {
    let deleted = "
- target: {kind: WasmPlugin, name: alb-oidc}
  patch: |-
    $patch: delete
    kind: WasmPlugin
    metadata: {name: alb-oidc}";
    let host = "kubeflow.example.com";
    let forged = [("kubeflow-userid", "admin@example.com")];
    let open = World::start(&["kubeflow"], "", deleted, KEY_SERVER).await;
    open.denied(host, "/", &[], 403, DENIED_BY_POLICY).await;
    assert_eq!(
        open.admitted(host, "/", &forged)
            .await
            .header("kubeflow-userid"),
        ["admin@example.com"]
    );
    drop(open);

    let shut = World::start(&["kubeflow", "shut"], "", deleted, KEY_SERVER).await;
    shut.denied(host, "/", &[], 403, DENIED_BY_POLICY).await;
    shut.denied(host, "/", &forged, 403, DENIED_BY_POLICY).await;
    let ann = shut.token(&TokenSpec::of("ann@example.com"));
    shut.denied(
        host,
        "/",
        &[("x-amzn-oidc-data", &ann)],
        403,
        DENIED_BY_POLICY,
    )
    .await;
}

#[tokio::test]
async fn a_gateway_that_is_shut_lets_nobody_pass_with_the_filter_either() {
    let world = World::start(&["kubeflow", "shut", "gateway-api"], "", "", KEY_SERVER).await;
    let ann = world.token(&TokenSpec::of("ann@example.com"));
    world
        .denied(
            "kubeflow.example.com",
            "/",
            &[("x-amzn-oidc-data", &ann)],
            403,
            DENIED_BY_POLICY,
        )
        .await;
}

#[tokio::test]
async fn a_group_opens_argocd_and_grafanas_health_is_open() {
    let port = "
- target: {kind: Gateway, name: alb}
  patch: |-
    - {op: replace, path: /spec/servers/0/port/number, value: PORT}";
    let world = World::start(&["standalone", "traffic-extension"], "", port, KEY_SERVER).await;
    let of = |groups: &str| {
        let mut spec = TokenSpec::of("ann@example.com");
        spec.payload.insert("custom:groups".into(), json!(groups));
        world.token(&spec)
    };
    let (member, other) = (of("[platform, data]"), of("[data]"));
    let seen = world
        .admitted("argocd.example.com", "/", &[("x-amzn-oidc-data", &member)])
        .await;
    assert_eq!(seen.header("kubeflow-groups"), ["platform,data"]);
    world
        .denied(
            "argocd.example.com",
            "/",
            &[("x-amzn-oidc-data", &other)],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    let spoofed = [
        ("x-amzn-oidc-data", other.as_str()),
        ("x-member-of-platform", "true"),
    ];
    world
        .denied("argocd.example.com", "/", &spoofed, 403, DENIED_BY_POLICY)
        .await;
    // What the route takes for its host the policy has to take for it too.
    let led_to = |seen: &Seen| seen.header("x-envoy-decorator-operation")[0].to_owned();
    for spelling in [
        "ARGOCD.example.com",
        "argocd.example.com:80",
        "Argocd.example.com:1234",
        "argocd.example.com:",
    ] {
        let seen = world
            .admitted(spelling, "/", &[("x-amzn-oidc-data", &member)])
            .await;
        assert_eq!(
            led_to(&seen),
            "argocd-server.argocd.svc.cluster.local:80/*",
            "{spelling}"
        );
        world
            .denied(spelling, "/", &spoofed, 403, DENIED_BY_POLICY)
            .await;
    }
    let seen = world.admitted("argocd.example.com.", "/", &spoofed).await;
    assert_eq!(
        led_to(&seen),
        "dashboard.kubeflow.svc.cluster.local:80/*",
        "another host to both"
    );
    world
        .admitted(
            "grafana.example.com",
            "/d/1",
            &[("x-amzn-oidc-data", &other)],
        )
        .await;
    world
        .admitted("web-view.example.com", "/", &[("x-amzn-oidc-data", &other)])
        .await;

    let seen = world
        .admitted(
            "grafana.example.com",
            "/api/health",
            &[("kubeflow-userid", "ann@example.com")],
        )
        .await;
    assert!(seen.header("kubeflow-userid").is_empty(), "{seen:?}");
    world
        .denied(
            "grafana.example.com",
            "/api/health/../users",
            &[],
            401,
            "token-missing",
        )
        .await;
    world
        .denied(
            "argocd.example.com",
            "/api/health",
            &[],
            401,
            "token-missing",
        )
        .await;
}

/// What a user of `machine-clients` changes: the one client, and the keys, which here are in the
/// manifest.
fn one_machine_client() -> String {
    let keys = fill_in_keys(r#"{"keys":[{key}]}"#, POOL_KEY);
    format!(
        "
- target: {{kind: RequestAuthentication, name: alb-oidc-machine-clients}}
  patch: |-
    - {{op: remove, path: /spec/jwtRules/0/jwksUri}}
    - {{op: add, path: /spec/jwtRules/0/jwks, value: '{keys}'}}
- target: {{kind: AuthorizationPolicy, name: alb-oidc-machine-clients}}
  patch: |-
    - {{op: replace, path: /spec/rules/1/when/0/notValues, value: [{MACHINE}]}}"
    )
}

#[tokio::test]
async fn machine_clients_and_browser_users_share_a_gateway_and_none_can_pass_for_the_other() {
    let overlays = ["kubeflow", "machine-clients", "gateway-api"];
    let world = World::start(&overlays, "", &one_machine_client(), KEY_SERVER).await;
    let (browsers, machines) = ("kubeflow.example.com", "machines.example.com");
    let of = |client: &str| AccessTokenSpec {
        payload: [
            ("client_id".to_owned(), json!(client)),
            ("sub".to_owned(), json!(client)),
        ]
        .into_iter()
        .collect(),
        ..AccessTokenSpec::default()
    };
    let machine = world.bearer(&of(MACHINE));
    let ann = world.token(&TokenSpec::of("ann@example.com"));

    let seen = world
        .admitted(
            machines,
            "/apis/v2beta1/runs",
            &[("authorization", &machine)],
        )
        .await;
    assert_eq!(seen.header("kubeflow-userid"), [MACHINE]);
    assert!(
        seen.header("authorization").is_empty(),
        "the token goes no further: {seen:?}"
    );
    let dressed_up = [
        ("authorization", machine.as_str()),
        ("kubeflow-userid", "ann@example.com"),
        ("kubeflow_userid", "ann@example.com"),
        ("x-machine-client", "ann@example.com"),
        ("x-kubeflow-group-admins", "true"),
    ];
    let seen = world.admitted(machines, "/", &dressed_up).await;
    assert_eq!(seen.header("kubeflow-userid"), [MACHINE]);
    assert_eq!(seen.header("x-machine-client"), [MACHINE]);
    for name in ["kubeflow_userid", "x-kubeflow-group-admins"] {
        assert!(seen.header(name).is_empty(), "{name}: {seen:?}");
    }

    // Nobody gets in there without a machine's token, by whatever header.
    world
        .denied(machines, "/", &[], 403, DENIED_BY_POLICY)
        .await;
    world
        .denied(machines, "/", &dressed_up[1..], 403, DENIED_BY_POLICY)
        .await;
    world
        .denied(
            machines,
            "/",
            &[("x-amzn-oidc-data", &ann)],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    world
        .denied(
            machines,
            "/",
            &[("authorization", &world.bearer(&of(CLIENT)))],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    let mut id_token = of(MACHINE);
    id_token.payload.insert("token_use".into(), json!("id"));
    world
        .denied(
            machines,
            "/",
            &[("authorization", &world.bearer(&id_token))],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    let expired = world.bearer(&AccessTokenSpec {
        exp: -3600,
        ..of(MACHINE)
    });
    world
        .denied(
            machines,
            "/",
            &[("authorization", &expired)],
            401,
            "Jwt is expired",
        )
        .await;
    let forged = AccessTokenSpec {
        signature: support::access_token::Signature::OtherKey,
        ..of(MACHINE)
    };
    world
        .denied(
            machines,
            "/",
            &[("authorization", &world.bearer(&forged))],
            401,
            "Jwt verification fails",
        )
        .await;
    for spelling in ["machines.example.com:8080", "MACHINES.example.com"] {
        world
            .denied(spelling, "/", &dressed_up[1..], 403, DENIED_BY_POLICY)
            .await;
    }
    let in_the_query = format!("/?access_token={}", of(MACHINE).mint(POOL_KEY, &world.key));
    world
        .denied(machines, &in_the_query, &[], 403, DENIED_BY_POLICY)
        .await;

    // Before version 1.40, Envoy's own filter keeps the header on a preflight. This filter removes
    // it.
    for name in ["x-machine-client", "x_machine_client", "x.machine.client"] {
        let (reply, seen) = world.preflight(machines, &[(name, MACHINE)]).await;
        assert_eq!(
            (reply.status, seen.len()),
            (403, 0),
            "{name}: {}",
            reply.body
        );
        let (reply, seen) = world
            .preflight(browsers, &[("x-amzn-oidc-data", &ann), (name, MACHINE)])
            .await;
        assert_eq!(
            (reply.status, seen.len()),
            (200, 1),
            "{name}: {}\n{}",
            reply.body,
            world.logs()
        );
        assert_eq!(seen[0].header(name), [""; 0], "{name}: {seen:?}");
        assert_eq!(
            seen[0].header("kubeflow-userid"),
            ["ann@example.com"],
            "{name}"
        );
    }

    // Browser users keep their name beside it, and no bearer token opens their hosts.
    let seen = world
        .admitted(
            browsers,
            "/",
            &[("x-amzn-oidc-data", &ann), ("x-machine-client", MACHINE)],
        )
        .await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    assert!(seen.header("x-machine-client").is_empty(), "{seen:?}");
    world
        .denied(
            browsers,
            "/",
            &[("authorization", &machine)],
            401,
            "token-missing",
        )
        .await;
    let both = [
        ("x-amzn-oidc-data", ann.as_str()),
        ("authorization", machine.as_str()),
    ];
    assert_eq!(
        world
            .admitted(browsers, "/", &both)
            .await
            .header("kubeflow-userid"),
        ["ann@example.com"]
    );
}

#[tokio::test]
async fn machine_clients_share_a_gateway_with_argocd_and_grafana() {
    let gateway = "
- target: {kind: VirtualService, name: alb-oidc-machine-clients}
  patch: |-
    - {op: replace, path: /spec/gateways, value: [alb]}
- target: {kind: Gateway, name: alb}
  patch: |-
    - {op: replace, path: /spec/servers/0/port/number, value: PORT}";
    let own = one_machine_client() + gateway;
    let world = World::start(&["machine-clients", "standalone"], "", &own, KEY_SERVER).await;
    let machine = world.bearer(&AccessTokenSpec {
        payload: [
            ("client_id".to_owned(), json!(MACHINE)),
            ("sub".to_owned(), json!(MACHINE)),
        ]
        .into_iter()
        .collect(),
        ..AccessTokenSpec::default()
    });
    let mut spec = TokenSpec::of("ann@example.com");
    spec.payload
        .insert("custom:groups".into(), json!("[platform]"));
    let ann = world.token(&spec);
    let bearer = [("authorization", machine.as_str())];
    let spoofed = [
        ("kubeflow-userid", "ann@example.com"),
        ("x-machine-client", MACHINE),
    ];

    let seen = world.admitted("machines.example.com", "/", &bearer).await;
    assert_eq!(seen.header("kubeflow-userid"), [MACHINE]);
    let seen = world
        .admitted("argocd.example.com", "/", &[("x-amzn-oidc-data", &ann)])
        .await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    world
        .admitted("grafana.example.com", "/api/health", &[])
        .await;

    world
        .denied("machines.example.com", "/", &spoofed, 403, DENIED_BY_POLICY)
        .await;
    world
        .denied(
            "machines.example.com",
            "/api/health",
            &spoofed,
            403,
            DENIED_BY_POLICY,
        )
        .await;
    world
        .denied(
            "machines.example.com",
            "/",
            &[("x-amzn-oidc-data", &ann)],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    for host in [
        "argocd.example.com",
        "grafana.example.com",
        "web-view.example.com",
    ] {
        world.denied(host, "/", &bearer, 401, "token-missing").await;
        world
            .denied(host, "/", &spoofed, 401, "token-missing")
            .await;
    }
}

const TENANCY: &str = "
users:
- user: ann@example.com
  contributors: [{user: bob@example.com}]
groups:
- group: ML ops
  contributors: [{user: carol@example.com, role: view}]
";

/// What `alb-oidc tenancy` prints for [`TENANCY`] and the filter of these manifests.
async fn tenancy(folder: &Path, manifests: &str) -> String {
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("a file written");
        folder.join(name).to_str().expect("a path").to_owned()
    };
    let (tenancy, config) = (
        file("tenancy.yaml", TENANCY),
        file("manifests.yaml", manifests),
    );
    alb_oidc(&["tenancy", &tenancy, "--config", &config]).await
}

#[tokio::test]
async fn istioctl_finds_no_fault_with_a_tenancy() {
    let install = Install::new(&["kubeflow"]);
    let printed = tenancy(
        install.folder.path(),
        &install.render().await.expect("the manifests rendered"),
    )
    .await;
    assert_eq!(
        printed.matches("kind: AuthorizationPolicy").count(),
        3,
        "{printed}"
    );
    let file = install.folder.path().join("printed.yaml");
    std::fs::write(&file, printed).expect("a file written");
    for check in [&["validate", "-f"][..], &["analyze", "--use-kube=false"]] {
        let said = run(
            &program("istioctl"),
            &[check, &[file.to_str().expect("a path")]].concat(),
            "",
        )
        .await;
        said.unwrap_or_else(|error| panic!("istioctl {check:?}: {error}"));
    }
}

/// Here the gateway stands for the services of the namespace, so the policies lose what names the
/// gateway itself, who proves that to a service by mTLS.
#[tokio::test]
async fn what_tenancy_prints_lets_a_groups_members_in_and_no_others() {
    let install = Install::new(&["kubeflow"]);
    let printed = tenancy(
        install.folder.path(),
        &install.render().await.expect("the manifests rendered"),
    )
    .await;
    let mut policies = String::new();
    for document in printed.split("\n---\n") {
        let mut resource: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
        if resource["kind"] == "AuthorizationPolicy"
            && resource["metadata"]["namespace"] == "ml-ops"
        {
            resource["metadata"]["namespace"] = json!("istio-system");
            resource["spec"]["rules"][0]
                .as_object_mut()
                .expect("a rule")
                .remove("from")
                .expect("principals");
            policies += &format!("---\n{resource}\n");
        }
    }
    let world = World::start(&["kubeflow"], &policies, "", KEY_SERVER).await;
    let of = |user: &str, groups: serde_json::Value| {
        let mut spec = TokenSpec::of(user);
        spec.payload.insert("custom:groups".into(), groups);
        world.token(&spec)
    };
    let host = "kubeflow.example.com";
    let (dan, eve) = (
        of("dan@example.com", json!(["ML ops"])),
        of("eve@example.com", json!(["ML", "ops", "ml ops"])),
    );
    let carol = of("carol@example.com", json!([]));
    let seen = world
        .admitted(host, "/notebook/ml-ops/one/", &[("x-amzn-oidc-data", &dan)])
        .await;
    assert_eq!(seen.header("x-kubeflow-group-%4d%4c%20ops"), ["ML ops"]);
    world
        .admitted(
            host,
            "/notebook/ml-ops/one/",
            &[("x-amzn-oidc-data", &carol)],
        )
        .await;
    world
        .denied(
            host,
            "/notebook/ml-ops/one/",
            &[("x-amzn-oidc-data", &eve)],
            403,
            DENIED_BY_POLICY,
        )
        .await;
    let spoofed = [
        ("x-amzn-oidc-data", eve.as_str()),
        ("x-kubeflow-group-%4d%4c%20ops", "ML ops"),
        ("kubeflow-userid", "carol@example.com"),
    ];
    world
        .denied(
            host,
            "/notebook/ml-ops/one/",
            &spoofed,
            403,
            DENIED_BY_POLICY,
        )
        .await;
}

#[tokio::test]
async fn a_key_server_that_cannot_prove_its_name_gives_no_keys() {
    let world = World::start(
        &["kubeflow"],
        "",
        "",
        "public-keys.auth.elb.us-east-1.amazonaws.com",
    )
    .await;
    let ann = world.token(&TokenSpec::of("ann@example.com"));
    world
        .denied(
            "kubeflow.example.com",
            "/",
            &[("x-amzn-oidc-data", &ann)],
            503,
            "key-unavailable",
        )
        .await;
    assert!(world.keys.fetches().is_empty());
}

/// A policy compares a host with its port, which is the client's choice: what is denied for a host
/// has to be for all its ports.
fn deny_hosts_with_every_port(manifests: &str) {
    for document in manifests.split("\n---\n") {
        let policy: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let rules = if policy["spec"]["action"] == "DENY" {
            list(&policy["spec"]["rules"])
        } else {
            Vec::new()
        };
        for to in rules.iter().flat_map(|rule| list(&rule["to"])) {
            let hosts = list(&to["operation"]["hosts"]);
            for host in hosts
                .iter()
                .filter_map(|host| host.as_str())
                .filter(|host| !host.ends_with(":*"))
            {
                assert!(
                    hosts.contains(&json!(format!("{host}:*"))),
                    "{host} in {document}"
                );
            }
        }
    }
}

#[tokio::test]
async fn istioctl_finds_no_fault_with_any_overlay() {
    let istioctl = program("istioctl");
    for overlays in [
        &[][..],
        &["kubeflow"],
        &["kubeflow", "cognito-groups"],
        &[
            "kubeflow",
            "cognito-groups",
            "machine-clients",
            "gateway-api",
        ],
        &[
            "kubeflow",
            "machine-clients",
            "gateway-api",
            "traffic-extension",
        ],
        &["standalone"],
        &["standalone", "traffic-extension"],
        &["standalone", "cognito-groups", "machine-clients"],
        &["govcloud"],
        &["fail-close"],
        &["standalone", "machine-clients", "shut"],
        &["kubeflow", "shut", "gateway-api"],
    ] {
        let mut install = Install::new(overlays);
        if overlays.contains(&"govcloud") {
            install.arn = ARN
                .replace("arn:aws:", "arn:aws-us-gov:")
                .replace("us-west-2", "us-gov-east-1");
        }
        let manifests = install
            .render()
            .await
            .unwrap_or_else(|error| panic!("{overlays:?}: {error}"));
        assert!(
            !manifests.contains("FROM-VALUES")
                && !manifests.contains("DOMAIN")
                && !manifests.contains("GATEWAY"),
            "{manifests}"
        );
        deny_hosts_with_every_port(&manifests);
        let file = install.folder.path().join("manifests.yaml");
        std::fs::write(&file, &manifests).expect("the manifests' file");
        let file = file.to_str().expect("a path");
        let said = alb_oidc(&["check", file]).await;
        assert!(said.contains("the config is good"), "{overlays:?}: {said}");
        // Of what opens the machine clients' host, which is to be open.
        assert_eq!(
            said.matches("warning").count(),
            usize::from(overlays.contains(&"machine-clients")),
            "{said}"
        );
        let clusters: Vec<_> = said
            .split("outbound|443||")
            .skip(1)
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        assert_eq!(
            clusters.len(),
            1 + usize::from(overlays.contains(&"cognito-groups")),
            "{said}"
        );
        for host in clusters {
            assert!(
                manifests.contains(&format!("  hosts:\n  - {host}\n")),
                "{overlays:?}: no way to {host}"
            );
            assert!(
                manifests.contains(&format!("  host: {host}\n")),
                "{overlays:?}: no TLS to {host}"
            );
        }
        let said = run(&istioctl, &["validate", "-f", file], "").await;
        said.unwrap_or_else(|error| panic!("istioctl validate of {overlays:?}: {error}"));

        // With what the manifests lead to beside them, which is not theirs.
        let upstream = SocketAddr::from(([127, 0, 0, 1], 80));
        install.beside = kubeflow(8080);
        for (host, port) in [
            ("dashboard.kubeflow.svc.cluster.local", 80),
            ("ml-pipeline.kubeflow.svc.cluster.local", 8888),
            ("argocd-server.argocd.svc.cluster.local", 80),
            ("kube-web-view.kube-web-view.svc.cluster.local", 80),
            ("grafana.monitoring.svc.cluster.local", 80),
        ] {
            install.beside += &service(host, port, upstream);
        }
        let manifests = install
            .render()
            .await
            .unwrap_or_else(|error| panic!("{overlays:?}: {error}"));
        std::fs::write(file, manifests).expect("the manifests' file");
        let said = run(&istioctl, &["analyze", "--use-kube=false", file], "").await;
        said.unwrap_or_else(|error| panic!("istioctl analyze of {overlays:?}: {error}"));
    }
}

#[tokio::test]
async fn kubeflows_own_gate_is_taken_away_and_nothing_else() {
    let mut install = Install::new(&["kubeflow/manifests"]);
    let of = |kind: &str, name: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1beta1\nkind: {kind}\nmetadata: {{name: {name}, namespace: istio-system}}\nspec: {{}}\n"
        )
    };
    install.beside = of("AuthorizationPolicy", "istio-ingressgateway-require-jwt")
        + &of("AuthorizationPolicy", "istio-ingressgateway-oauth2-proxy")
        + &of("AuthorizationPolicy", "istio-ingressgateway")
        + &of("RequestAuthentication", "dex-jwt")
        + &of("RequestAuthentication", "m2m-token-issuer");
    let manifests = install.render().await.expect("the manifests rendered");
    for gone in ["require-jwt", "oauth2-proxy", "dex-jwt", "m2m-token-issuer"] {
        assert!(!manifests.contains(gone), "{gone}: {manifests}");
    }
    assert!(
        manifests.contains("name: istio-ingressgateway\n"),
        "{manifests}"
    );
}

#[tokio::test]
async fn without_values_nothing_is_rendered() {
    let install = Install::new(&[]);
    let folder = install.folder.path().join("istio/install");
    drop(std::fs::remove_file(folder.join("values.yaml")));
    let said = run(
        &program("kustomize"),
        &["build", folder.to_str().expect("a path")],
        "",
    )
    .await;
    assert!(
        said.is_err_and(|error| error.contains("values.yaml")),
        "it was rendered"
    );
}

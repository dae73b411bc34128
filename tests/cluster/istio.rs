//! Istio: its own CRDs, webhooks, injector and control plane, and gateways as their pods run them.

use crate::kubernetes::Kubernetes;
use crate::program::{Running, START_UP, built, helm, run};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::client::{Request, send};
use tokio::process::Command;

/// Istio's own namespace, where the gateways are too.
pub(crate) const NAMESPACE: &str = "istio-system";
/// The Service of the control plane.
pub(crate) const CONTROL_PLANE: &str = "istiod.istio-system.svc";
/// Helm's arguments for Istio's own charts.
const TEMPLATE: [&str; 5] = ["--namespace", NAMESPACE, "template", "istiod", "--set"];

/// The running control plane, pilot-discovery.
pub(crate) struct ControlPlane {
    discovery: Running,
}

impl ControlPlane {
    /// Installs Istio by its own charts, all but the Deployment, and starts the control plane.
    pub(crate) async fn start(folder: &Path, kubernetes: &Kubernetes) -> ControlPlane {
        let namespaces = [NAMESPACE, "kubeflow"].map(|name| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string()
        });
        kubernetes.apply(&namespaces.join("\n---\n")).await;
        for crds in ["istio-crds.yaml", "gateway-api-crds.yaml"] {
            let text = std::fs::read_to_string(built(crds)).expect("the CRDs");
            kubernetes.apply(&text).await;
        }
        let url = |path: &str| format!("https://{CONTROL_PLANE}:15017/{path}");
        let mut rendered = String::new();
        for (chart, values) in [
            (
                "base",
                format!(
                    "base.validationURL={},base.excludedCRDs={{}},defaultRevision=default,base.enableCRDTemplates=false",
                    url("validate")
                ),
            ),
            (
                "istio-control/istio-discovery",
                format!(
                    "base.validationURL={},istiodRemote.injectionURL={}",
                    url("validate"),
                    url("inject")
                ),
            ),
        ] {
            let chart = built("charts").join(chart);
            let mut helm = Command::new(helm());
            let rendering = run(helm.args(TEMPLATE).arg(values).arg(chart), "").await;
            rendered += &rendering.unwrap_or_else(|error| panic!("helm template: {error}"));
        }
        let objects: Vec<String> = crate::kubernetes::documents(&rendered)
            .iter()
            .filter(|object| {
                object["kind"] != "Deployment" && object["kind"] != "HorizontalPodAutoscaler"
            })
            .map(Value::to_string)
            .collect();
        kubernetes.apply(&objects.join("\n---\n")).await;

        std::fs::write(folder.join("mesh.yaml"), "accessLogFile: ''\n").expect("a file written");
        let discovery = Running::start(
            "pilot-discovery",
            folder,
            Command::new(built("pilot-discovery"))
                .args(["discovery", "--meshConfig", "mesh.yaml", "--kubeconfig"])
                .arg(&kubernetes.kubeconfig)
                .args(["--httpAddr", "127.0.0.1:15080", "--ctrlz_port", "0"])
                .env("POD_NAMESPACE", NAMESPACE)
                .env("POD_NAME", "istiod-0")
                .env("SERVICE_ACCOUNT", "istiod")
                .env("REVISION", "default")
                .env("CLUSTER_ID", "Kubernetes")
                .env("PILOT_CERT_PROVIDER", "istiod")
                .env("PILOT_DEBOUNCE_AFTER", "10ms")
                // Filters of Istio's own Envoy, which the stock one does not have.
                .env("PILOT_ENABLE_ALPN_FILTER", "false")
                .env("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
        );
        let control_plane = ControlPlane { discovery };
        control_plane.until_it_validates(kubernetes).await;
        control_plane
    }

    /// Waits until its webhooks are called, and an error of theirs rejects an object.
    async fn until_it_validates(&self, kubernetes: &Kubernetes) {
        let deadline = Instant::now() + START_UP;
        loop {
            let webhooks = kubernetes
                .get(&["validatingwebhookconfigurations", "-l", "app=istiod"])
                .await;
            let webhooks: Vec<&Value> = webhooks["items"]
                .as_array()
                .expect("a list")
                .iter()
                .flat_map(|item| item["webhooks"].as_array().expect("webhooks"))
                .collect();
            let ready = |webhook: &&&Value| {
                webhook["failurePolicy"] == "Fail"
                    && webhook["clientConfig"]["caBundle"].is_string()
            };
            if webhooks.len() == 2 && webhooks.iter().filter(ready).count() == 2 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no webhook: {webhooks:?}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        self.discovery.log()
    }
}

/// How a gateway's pod is labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As Istio's gateway chart does: `istio: ingressgateway`.
    Classic,
    /// As Istio does for a Gateway of the Gateway API.
    GatewayApi,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Classic, Kind::GatewayApi];

    /// The name of its pod, Service and service account.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Classic => "istio-ingressgateway",
            Kind::GatewayApi => "kubeflow-istio",
        }
    }

    fn labels(self) -> Value {
        match self {
            Kind::Classic => json!({"app": "istio-ingressgateway", "istio": "ingressgateway"}),
            Kind::GatewayApi => json!({
                "gateway.networking.k8s.io/gateway-name": "kubeflow",
                "gateway.networking.k8s.io/gateway-class-name": "istio",
            }),
        }
    }

    /// Its number, from which its ports and address are made.
    fn number(self) -> u16 {
        match self {
            Kind::Classic => 0,
            Kind::GatewayApi => 1,
        }
    }

    /// What a policy's spec names it by.
    pub(crate) fn target(self) -> Value {
        match self {
            Kind::Classic => json!({"selector": {"matchLabels": {"istio": "ingressgateway"}}}),
            Kind::GatewayApi => json!({"targetRefs": [{
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "kubeflow",
            }]}),
        }
    }

    /// The ports that accept requests without TLS.
    pub(crate) fn listeners(self) -> &'static [u16] {
        match self {
            Kind::Classic => &[8080, 8081],
            Kind::GatewayApi => &[8090],
        }
    }
}

/// The port of the classic gateway's two HTTPS servers.
pub(crate) const TLS_PORT: u16 = 8443;
/// The port of its TCP server.
pub(crate) const TCP_PORT: u16 = 9000;

/// A gateway's agent, with the Envoy that it starts.
pub(crate) struct Gateway {
    agent: Running,
    admin: SocketAddr,
    status: SocketAddr,
}

impl Gateway {
    /// Starts it, with its files below `folder`, and waits until it is ready.
    pub(crate) async fn start(folder: &Path, kubernetes: &Kubernetes, kind: Kind) -> Gateway {
        let folder = folder.join(kind.name());
        let base = 15000 + 1000 * kind.number();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let pod_ip = format!("192.0.2.{}", 1 + kind.number());
        pod(kubernetes, kind, &pod_ip).await;
        credentials(&folder, kubernetes, kind).await;
        let proxy = json!({
            "discoveryAddress": format!("{CONTROL_PLANE}:15012"),
            "binaryPath": support::default_envoy().canonicalize().expect("Envoy's path"),
            "proxyBootstrapTemplatePath": built("envoy_bootstrap.json"),
            "configPath": "./etc/istio/proxy",
            "proxyAdminPort": base,
            "statusPort": base + 20,
            "concurrency": 1,
        });
        let mut agent = Command::new("unshare");
        // A process namespace, so that Envoy ends with the agent; a mount namespace for its
        // modules.
        agent.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-euc"]);
        agent.arg("mount -t tmpfs none /var/lib/istio/data; exec \"$0\" \"$@\"");
        agent.arg(built("pilot-agent")).args(["proxy", "router"]);
        agent.args(["--domain", &format!("{NAMESPACE}.svc.cluster.local")]);
        agent
            .env("PROXY_CONFIG", proxy.to_string())
            .env("POD_NAME", kind.name())
            .env("POD_NAMESPACE", NAMESPACE)
            .env("INSTANCE_IP", pod_ip)
            .env("SERVICE_ACCOUNT", kind.name())
            .env("TRUST_DOMAIN", "cluster.local")
            .env("CA_ADDR", format!("{CONTROL_PLANE}:15012"))
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("ISTIO_METAJSON_LABELS", kind.labels().to_string())
            .env("ENVOY_STATUS_PORT", (base + 21).to_string())
            .env("ENVOY_PROMETHEUS_PORT", (base + 90).to_string());
        let gateway = Gateway {
            agent: Running::start("pilot-agent", &folder, &mut agent),
            admin: at(base),
            status: at(base + 20),
        };
        let deadline = Instant::now() + START_UP;
        let ready = Request::get("/healthz/ready", &[("host", "agent")]);
        while !send(gateway.status, &ready)
            .await
            .is_ok_and(|reply| reply.status == 200)
        {
            assert!(
                Instant::now() < deadline,
                "{kind:?} is not ready\n{}",
                gateway.log()
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        gateway
    }

    pub(crate) fn log(&self) -> String {
        self.agent.log()
    }

    /// What Envoy's administration interface answers.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let request = Request::get(path, &[("host", "admin")]);
        let reply = send(self.admin, &request).await.expect("Envoy's answer");
        serde_json::from_str(&reply.body).unwrap_or_else(|error| panic!("{error}: {}", reply.body))
    }
}

/// What the API server has of a gateway's pod: nothing runs it here.
async fn pod(kubernetes: &Kubernetes, kind: Kind, ip: &str) {
    let name = kind.name();
    let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": kind.labels()});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}});
    kubernetes.apply(&account.to_string()).await;
    let mut annotated = metadata.clone();
    annotated["annotations"] = json!({"sidecar.istio.io/inject": "false"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": annotated,
        "spec": {"serviceAccountName": name, "containers": [{"name": "istio-proxy", "image": "istio-proxy"}]},
    });
    kubernetes.apply(&pod.to_string()).await;
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let arguments = [
        "patch",
        "pod",
        name,
        "-n",
        NAMESPACE,
        "--subresource",
        "status",
        "--type",
        "merge",
        "-p",
    ];
    kubernetes
        .must(&[&arguments[..], &[&status.to_string()]].concat(), "")
        .await;
}

/// Writes the token and the CA's certificate, where a pod has them mounted.
async fn credentials(folder: &Path, kubernetes: &Kubernetes, kind: Kind) {
    let secrets = folder.join("var/run/secrets");
    let write = |name: &str, text: String| {
        let path: PathBuf = secrets.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file written");
    };
    let arguments = [
        "create",
        "token",
        kind.name(),
        "-n",
        NAMESPACE,
        "--audience",
        "istio-ca",
    ];
    write("tokens/istio-token", kubernetes.must(&arguments, "").await);
    let deadline = Instant::now() + START_UP;
    let root = loop {
        let arguments = [
            "get",
            "configmap",
            "istio-ca-root-cert",
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={.data.root-cert\\.pem}",
        ];
        match kubernetes.kubectl(&arguments, "").await {
            Ok(root) => break root,
            Err(error) => assert!(Instant::now() < deadline, "no root certificate: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    write("istio/root-cert.pem", root);
}

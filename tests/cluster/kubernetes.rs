//! Kubernetes as far as a control plane and its clients see it: etcd and an API server, without
//! nodes or controllers.

use crate::program::{Running, START_UP, built, run};
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::process::Command;

const TOKEN: &str = "administrator";

/// A running API server with the administrator's `kubeconfig`.
pub(crate) struct Kubernetes {
    // Dropped in this order: without etcd, the API server does not end by itself.
    api_server: Running,
    etcd: Running,
    pub(crate) kubeconfig: PathBuf,
}

impl Kubernetes {
    /// Starts an empty cluster, with its data below `folder`, and waits until it is ready.
    pub(crate) async fn start(folder: &Path, port: u16) -> Kubernetes {
        let folder = folder.join(format!("kubernetes-{port}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file written");
            path
        };
        let etcd_at = format!("http://127.0.0.1:{}", port + 1);
        let peer_at = format!("http://127.0.0.1:{}", port + 2);
        let etcd = Running::start(
            "etcd",
            &folder,
            Command::new(built("server"))
                .args(["--name", "etcd", "--data-dir", "etcd", "--unsafe-no-fsync"])
                .args(["--listen-client-urls", &etcd_at])
                .args(["--advertise-client-urls", &etcd_at])
                .args(["--listen-peer-urls", &peer_at])
                .args(["--initial-advertise-peer-urls", &peer_at])
                .args(["--initial-cluster", &format!("etcd={peer_at}")])
                .args(["--log-level", "warn"]),
        );
        let key = p256::SecretKey::from_slice(&[0x5a; 32]).expect("a key");
        let private = key.to_pkcs8_pem(LineEnding::LF).expect("a PEM");
        write("account.key", private.to_string());
        let public = key.public_key().to_public_key_pem(LineEnding::LF);
        write("account.pub", public.expect("a PEM"));
        write(
            "tokens.csv",
            format!("{TOKEN},administrator,administrator,system:masters\n"),
        );
        let api_server = Running::start(
            "kube-apiserver",
            &folder,
            Command::new(built("kube-apiserver"))
                .args(["--etcd-servers", &etcd_at])
                .args(["--bind-address", "127.0.0.1", "--advertise-address"])
                .args(["127.0.0.1", "--secure-port", &port.to_string()])
                .args(["--cert-dir", "certificates"])
                .args(["--endpoint-reconciler-type", "none"])
                .args(["--service-cluster-ip-range", "10.96.0.0/16"])
                .args(["--service-account-issuer", "https://kubernetes.default.svc"])
                .args(["--service-account-key-file", "account.pub"])
                .args(["--service-account-signing-key-file", "account.key"])
                .args(["--authorization-mode", "RBAC"])
                .args(["--token-auth-file", "tokens.csv"]),
        );
        let certificate = folder.join("certificates/apiserver.crt");
        let cluster = json!({"server": format!("https://127.0.0.1:{port}"), "certificate-authority": certificate});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        });
        let kubernetes = Kubernetes {
            api_server,
            etcd,
            kubeconfig: write("kubeconfig", config.to_string()),
        };
        let deadline = Instant::now() + START_UP;
        while let Err(error) = kubernetes.kubectl(&["get", "--raw", "/readyz"], "").await {
            assert!(
                Instant::now() < deadline,
                "the API server is not ready: {error}\n{}{}",
                kubernetes.api_server.log(),
                kubernetes.etcd.log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
        kubernetes
    }

    /// Runs kubectl.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut kubectl = Command::new(built("kubectl"));
        kubectl.env("KUBECONFIG", &self.kubeconfig);
        run(kubectl.args(arguments), input).await
    }

    /// Runs kubectl, which has to succeed.
    pub(crate) async fn must(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl(arguments, input).await;
        output.unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Applies these manifests by server-side apply, with unknown fields rejected.
    pub(crate) async fn apply(&self, manifests: &str) {
        self.must(&APPLY, manifests).await;
    }

    /// Deletes what these manifests name.
    pub(crate) async fn delete(&self, manifests: &str) {
        let arguments = ["delete", "--ignore-not-found", "--wait=false", "-f", "-"];
        self.must(&arguments, manifests).await;
    }

    /// An object, or a list of them.
    pub(crate) async fn get(&self, arguments: &[&str]) -> Value {
        let arguments = [&["get", "-o", "json"], arguments].concat();
        let text = self.must(&arguments, "").await;
        serde_json::from_str(&text).expect("JSON")
    }
}

/// kubectl's arguments for server-side apply.
pub(crate) const APPLY: [&str; 6] = [
    "apply",
    "--server-side",
    "--force-conflicts",
    "--validate=strict",
    "-f",
    "-",
];

/// The documents of a YAML stream.
pub(crate) fn documents(manifests: &str) -> Vec<Value> {
    manifests
        .split("\n---")
        .map(|document| {
            serde_saphyr::from_str::<Value>(document.trim_start_matches("---"))
                .unwrap_or_else(|error| panic!("{error}: {document}"))
        })
        .filter(|document| !document.is_null())
        .collect()
}

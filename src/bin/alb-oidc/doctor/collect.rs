//! Reads the state of a cluster through the API server, with GET requests only. Judges nothing, and
//! reads no Secrets.

use std::io::ErrorKind;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config, Error};
use serde_json::{Value, json};

use super::cluster::{Cluster, Metrics, PodMetrics, metrics};
use crate::trouble::Trouble;

/// API group and version, plural, kind.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("extensions.istio.io/v1alpha1", "wasmplugins", "WasmPlugin"),
    (
        "extensions.istio.io/v1alpha1",
        "trafficextensions",
        "TrafficExtension",
    ),
    (
        "networking.istio.io/v1alpha3",
        "envoyfilters",
        "EnvoyFilter",
    ),
    ("networking.istio.io/v1", "serviceentries", "ServiceEntry"),
    (
        "networking.istio.io/v1",
        "destinationrules",
        "DestinationRule",
    ),
    ("networking.istio.io/v1", "gateways", "Gateway"),
    (
        "networking.istio.io/v1",
        "virtualservices",
        "VirtualService",
    ),
    ("gateway.networking.k8s.io/v1", "gateways", "Gateway"),
    ("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"),
    (
        "security.istio.io/v1",
        "authorizationpolicies",
        "AuthorizationPolicy",
    ),
    (
        "security.istio.io/v1",
        "requestauthentications",
        "RequestAuthentication",
    ),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    ("v1", "namespaces", "Namespace"),
    ("v1", "pods", "Pod"),
];
/// Resources in one answer.
const PAGE_SIZE: u32 = 500;
/// The port of Envoy's metrics in a pod of Istio.
const METRICS_PORT: u16 = 15090;

/// The client of the user's kubeconfig; `None` if `KUBECONFIG` is not set and the default file does
/// not exist.
///
/// # Errors
/// The kubeconfig cannot be read or is invalid.
pub(super) async fn client(context: Option<String>) -> Result<Option<Client>, Trouble> {
    let trouble = |error: &dyn std::fmt::Display| Trouble(format!("kubeconfig: {error}"));
    let named = Kubeconfig::from_env().map_err(|error| trouble(&error))?;
    let file = match named.map_or_else(Kubeconfig::read, Ok) {
        Ok(file) => file,
        Err(KubeconfigError::FindPath) => return Ok(None),
        Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(trouble(&error)),
    };
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(|error| trouble(&error))?;
    let client = Client::try_from(config).map_err(|error| trouble(&error))?;
    Ok(Some(client))
}

/// Everything but the metrics. A kind that the cluster does not have has no resources.
///
/// # Errors
/// The API server does not answer.
pub(super) async fn collect(client: &Client) -> Result<Cluster, Trouble> {
    let mut cluster = Cluster::default();
    for (version, plural, kind) in RESOURCES {
        match list(client, version, plural, kind).await {
            Ok(resources) => cluster.resources.extend(resources),
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(Error::Api(status)) => cluster.unread.push(format!("{plural}: {}", status.message)),
            Err(error) => return Err(Trouble(format!("API server: {error}"))),
        }
    }
    let mesh = get(client, "/api/v1/namespaces/istio-system/configmaps/istio").await;
    match mesh.map(|map| {
        map.pointer("/data/mesh")
            .and_then(Value::as_str)
            .map(str::to_owned)
    }) {
        Ok(mesh) => cluster.mesh = mesh,
        Err(Error::Api(status)) if status.code == 404 => {}
        Err(error) => cluster
            .unread
            .push(format!("ConfigMap istio-system/istio: {error}")),
    }
    Ok(cluster)
}

/// The metrics of this pod.
pub(super) async fn pod_metrics(client: &Client, namespace: &str, pod: &str) -> PodMetrics {
    let path =
        format!("/api/v1/namespaces/{namespace}/pods/{pod}:{METRICS_PORT}/proxy/stats/prometheus");
    let page: Result<Metrics, Error> = text(client, &path).await.map(|page| metrics(&page));
    PodMetrics {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        outcome: page.map_err(|error| error.to_string()),
    }
}

/// Every resource of a kind, page by page.
async fn list(
    client: &Client,
    version: &str,
    plural: &str,
    kind: &str,
) -> Result<Vec<Value>, Error> {
    let root = if version.contains('/') { "apis" } else { "api" };
    let mut resources = Vec::new();
    let mut token = String::new();
    loop {
        let mut path = format!("/{root}/{version}/{plural}?limit={PAGE_SIZE}");
        if !token.is_empty() {
            let query = serde_urlencoded::to_string([("continue", &token)]).unwrap_or_default();
            path = format!("{path}&{query}");
        }
        let mut page = get(client, &path).await?;
        let items = page.get_mut("items").map(Value::take).unwrap_or_default();
        if let Value::Array(items) = items {
            resources.extend(items.into_iter().map(|item| named(item, version, kind)));
        }
        let next = page.pointer("/metadata/continue").and_then(Value::as_str);
        match next.filter(|next| !next.is_empty()) {
            Some(next) => next.clone_into(&mut token),
            None => return Ok(resources),
        }
    }
}

/// Elements of a list need not have version and kind.
fn named(mut item: Value, version: &str, kind: &str) -> Value {
    if let Some(members) = item.as_object_mut() {
        members.insert("apiVersion".to_owned(), json!(version));
        members.insert("kind".to_owned(), json!(kind));
    }
    item
}

async fn get(client: &Client, path: &str) -> Result<Value, Error> {
    let text = text(client, path).await?;
    serde_json::from_str(&text).map_err(Error::SerdeError)
}

async fn text(client: &Client, path: &str) -> Result<String, Error> {
    let request = axum::http::Request::get(path)
        .body(Vec::new())
        .map_err(Error::HttpError)?;
    client.request_text(request).await
}

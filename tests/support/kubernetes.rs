//! A simulated Kubernetes API for Istio's control plane: lists given resources, with watches that
//! never report a change. Stores nothing.

use super::server::{Body, Broken, Server, full};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

/// The running API.
pub struct Kubernetes(Server);

impl Kubernetes {
    /// Serves these resources, and the definitions of their kinds.
    pub async fn start(mut resources: Vec<Value>) -> Kubernetes {
        for (number, resource) in resources.iter_mut().enumerate() {
            let metadata = &mut resource["metadata"];
            metadata["uid"] = json!(format!("00000000-0000-4000-8000-{number:012}"));
            metadata["resourceVersion"] = json!("1");
            metadata["generation"] = json!(1);
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let resources = Arc::new(resources);
        Kubernetes(Server::start(move |request| serve(Arc::clone(&resources), request)).await)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// `extensions.istio.io` and `wasmplugins` of a WasmPlugin.
fn group_and_plural(resource: &Value) -> (String, String) {
    let text = |field: &str| {
        resource[field]
            .as_str()
            .expect("a kind and its version")
            .to_owned()
    };
    let group = text("apiVersion")
        .split_once('/')
        .map(|(group, _)| group.to_owned())
        .unwrap_or_default();
    let kind = text("kind").to_lowercase();
    let stem = kind.strip_suffix('y').filter(|stem| !stem.ends_with('a'));
    let plural = stem.map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
    (group, plural)
}

async fn serve(
    resources: Arc<Vec<Value>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let (path, query) = (
        request.uri().path().to_owned(),
        request.uri().query().unwrap_or_default().to_owned(),
    );
    let accept = request
        .headers()
        .get("accept")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let head = Response::builder().header("content-type", "application/json");
    if query.contains("watch=") {
        let (sender, channel) = Channel::<Bytes, Broken>::new(1);
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        return Ok(head.body(channel.boxed())?);
    }
    if path == "/version" {
        return Ok(head.body(full(
            json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"}).to_string(),
        ))?);
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let items: Vec<Value> =
        match parts[..] {
            ["apis", "apiextensions.k8s.io", _, "customresourcedefinitions"] => definitions(&resources),
            ["apis", group, version, plural] => {
                let of_kind = |resource: &&Value| group_and_plural(resource) == (group.to_owned(), plural.to_owned());
                let items = resources.iter().filter(of_kind).cloned();
                items
                    .map(|mut item| {
                        item["apiVersion"] = json!(format!("{group}/{version}"));
                        item
                    })
                    .collect()
            }
            ["api", "v1", _] | ["api", "v1", "namespaces", _, _] | ["apis", _, _, "namespaces", _, _] => Vec::new(),
            // A single resource, or a write: not found.
            _ => return Ok(head.status(404).body(full(
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
                    .to_string(),
            ))?),
        };
    let mut list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
    // The client knows the kind of any other list.
    if accept.contains("PartialObjectMetadataList") {
        list["apiVersion"] = json!("meta.k8s.io/v1");
        list["kind"] = json!("PartialObjectMetadataList");
    }
    Ok(head.body(full(list.to_string()))?)
}

fn definitions(resources: &[Value]) -> Vec<Value> {
    let mut names: Vec<String> = resources
        .iter()
        .map(|resource| {
            let (group, plural) = group_and_plural(resource);
            format!("{plural}.{group}")
        })
        .collect();
    names.sort();
    names.dedup();
    let definition = |name| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": name, "uid": name, "resourceVersion": "1"}});
    names.into_iter().map(definition).collect()
}

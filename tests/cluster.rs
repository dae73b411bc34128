//! The chart in a cluster: a Kubernetes API server, Istio's control plane with its webhooks and CA,
//! and gateways as their pods run them. Nothing here configures Envoy, and no manifest of the chart
//! is changed. `make test-cluster` builds the programs and runs this; `make test` does not.

#[path = "cluster/doctor.rs"]
mod doctor;
#[path = "cluster/filter_chains.rs"]
mod filter_chains;
#[path = "cluster/istio.rs"]
mod istio;
#[path = "cluster/kubernetes.rs"]
mod kubernetes;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "cluster/manifests.rs"]
mod manifests;
#[path = "cluster/pages.rs"]
mod pages;
#[path = "cluster/prober.rs"]
mod prober;
#[path = "cluster/program.rs"]
mod program;
#[path = "cluster/release.rs"]
mod release;
#[path = "cluster/requests.rs"]
mod requests;
#[path = "cluster/world.rs"]
mod world;

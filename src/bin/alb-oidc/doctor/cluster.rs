//! The state of a cluster, as data: resources, and the metrics of each gateway pod. No I/O.

use std::collections::BTreeMap;

use serde_json::Value;

/// What doctor reads from a cluster.
#[derive(Default)]
pub(super) struct Cluster {
    /// Resources with `apiVersion` and `kind`, pods and namespaces included.
    pub(super) resources: Vec<Value>,
    /// `mesh` of the ConfigMap `istio-system/istio`: YAML.
    pub(super) mesh: Option<String>,
    /// The metrics of each gateway pod.
    pub(super) metrics: Vec<PodMetrics>,
    /// What could not be read, and why.
    pub(super) unread: Vec<String>,
}

/// The answer of Envoy's metrics page in a pod, or why there is none.
pub(super) struct PodMetrics {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) outcome: Result<Metrics, String>,
}

/// The filter's metrics by their names without prefix, such as `denied_token_missing`.
pub(super) type Metrics = BTreeMap<String, f64>;

/// The filter's metrics on a Prometheus page. Empty if Envoy does not run the filter.
pub(super) fn metrics(page: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        // Istio makes a label of the prefix, a bare Envoy does not.
        let name = if labels.contains("wasm_filter=\"alb_oidc\"") {
            name
        } else if let Some((_, name)) = name.split_once("wasm_filter_alb_oidc_") {
            name
        } else {
            continue;
        };
        if let Ok(value) = value.parse::<f64>() {
            *metrics.entry(name.to_owned()).or_default() += value;
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_of_istio_and_of_envoy() {
        let page = "# TYPE admitted counter\n\
            admitted{wasm_filter=\"alb_oidc\"} 2\n\
            admitted{wasm_filter=\"alb_oidc\",x=\"y\"} 1\n\
            envoy_wasmcustom_wasm_filter_alb_oidc_waiting{} 4\n\
            admitted{wasm_filter=\"other\"} 9\n\
            envoy_server_live{} 1\n";
        let expected = [("admitted", 3.0), ("waiting", 4.0)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(metrics(page), Metrics::from(expected));
    }
}

//! The HTTP filters of a gateway's listeners, as its Envoy has them (`/config_dump`).

use serde_json::Value;

const CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// One HTTP filter chain of a listener that Istio configures.
pub(crate) struct FilterChain {
    /// The listener, and the number of the chain in it.
    pub(crate) name: String,
    pub(crate) port: u64,
    /// In order.
    pub(crate) filters: Vec<Value>,
}

/// Every HTTP filter chain, those of warming and draining listeners included.
pub(crate) fn filter_chains(dump: &Value) -> Vec<FilterChain> {
    let mut found = Vec::new();
    for listener in list(dump, "configs")
        .iter()
        .flat_map(|config| list(config, "dynamic_listeners"))
        .flat_map(|listener| {
            ["active_state", "warming_state", "draining_state"]
                .map(|state| listener[state]["listener"].clone())
        })
        .filter(Value::is_object)
    {
        let default = &listener["default_filter_chain"];
        let chains = list(&listener, "filter_chains");
        let chains = chains
            .iter()
            .chain(Some(default).filter(|chain| !chain.is_null()));
        for (number, chain) in chains.enumerate() {
            for manager in list(chain, "filters")
                .iter()
                .filter(|filter| filter["typed_config"]["@type"] == CONNECTION_MANAGER)
            {
                found.push(FilterChain {
                    name: format!("{} chain {number}", listener["name"]),
                    port: listener["address"]["socket_address"]["port_value"]
                        .as_u64()
                        .expect("a port"),
                    filters: list(&manager["typed_config"], "http_filters"),
                });
            }
        }
    }
    found
}

fn list(of: &Value, field: &str) -> Vec<Value> {
    of[field].as_array().cloned().unwrap_or_default()
}

/// Whether the interlock is the last filter before the router.
pub(crate) fn is_interlocked(chain: &FilterChain) -> bool {
    let [.., interlock, router] = &chain.filters[..] else {
        return false;
    };
    router["name"] == "envoy.filters.http.router" && admits_only_the_filters_requests(interlock)
}

/// Whether this is an RBAC filter whose one rule allows requests with the filter's state.
fn admits_only_the_filters_requests(filter: &Value) -> bool {
    let (config, rules) = (&filter["typed_config"], &filter["typed_config"]["rules"]);
    // The action ALLOW is the default, which the dump leaves out.
    let allows = rules["action"].is_null() || rules["action"] == "ALLOW";
    let policies: Vec<&Value> = rules["policies"]
        .as_object()
        .map(|policies| policies.values().collect())
        .unwrap_or_default();
    let keyed = |policy: &&Value| {
        let principals = policy["principals"].as_array();
        principals.is_some_and(|principals| {
            !principals.is_empty()
                && principals
                    .iter()
                    .all(|principal| principal["filter_state"]["key"] == "wasm.alb_oidc")
        })
    };
    config["@type"] == "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
        && allows
        && !policies.is_empty()
        && policies.iter().filter(|policy| keyed(policy)).count() == policies.len()
        && config["shadow_rules"].is_null()
}

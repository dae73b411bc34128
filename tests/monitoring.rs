//! `istio/chart/monitoring`: alert rules and dashboard use the metrics that Envoy publishes, under
//! the names that Istio gives them. Whether the expressions mean what they say, `alerts.rs` tests.

use alb_oidc_filter::{FetchOutcome, Reason};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use support::client::{Request, send};
use support::envoy::{Envoy, Plugin, Setup, gateway_config};
use support::key_server::KeyServer;
use support::upstream::Upstream;

const LABEL: &str = r#"wasm_filter="alb_oidc""#;

/// The names in the selectors of both files. A name that ends with `_` stands for all that begin
/// with it.
fn selected() -> BTreeSet<String> {
    let text = support::read("istio/chart/monitoring/rules.yaml")
        + &support::read("istio/chart/monitoring/dashboard.json").replace("\\\"", "\"");
    let label = format!("{{{LABEL}}}");
    let plain = text.split(&label);
    let plain = plain.filter_map(|before| before.rsplit(['(', ' ']).next());
    let families = text.split(r#"{__name__=~""#).skip(1);
    let families = families.filter_map(|rest| rest.split_once(".+\"").map(|(name, _)| name));
    let is_name =
        |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    plain
        .filter(is_name)
        .chain(families)
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test]
async fn uses_names_that_envoy_publishes() {
    let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
    let mut setup = Setup::new(
        &support::default_envoy(),
        upstream.address(),
        keys.address(),
    );
    // A VM whose signatures the host verifies, and one that verifies them itself.
    let mut alone = Plugin::new("alone", gateway_config());
    alone.env = BTreeMap::from([("ALB_OIDC_VERIFIER".to_owned(), "module".to_owned())]);
    setup.plugins = vec![Plugin::new("gateway", gateway_config()), alone];
    let envoy = Envoy::must_start(&setup).await;
    let gateway = envoy.listener("gateway").await.expect("the listener");
    let request = Request::get("/", &[("host", "gateway.test")]);
    let reply = send(gateway, &request).await.expect("an answer");
    assert_eq!(reply.status, 401);

    let page = envoy.prometheus().await;
    assert!(
        page.contains(&format!("\ndenied_token_missing{{{LABEL}}} 1\n")),
        "{page}"
    );
    let published: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.split_once(&format!("{{{LABEL}}} ")))
        .map(|(name, _)| name.to_owned())
        .collect();
    let selected = selected();
    let family = |name: &str| {
        selected
            .iter()
            .any(|family| family.ends_with('_') && name.starts_with(family))
    };
    for name in &selected {
        let is_published = match name.strip_suffix('_') {
            Some(_) => published.iter().any(|other| other.starts_with(name)),
            None => published.contains(name),
        };
        assert!(is_published, "{name}: {published:?}");
    }
    // The dashboard shows every metric.
    for name in &published {
        assert!(selected.contains(name) || family(name), "{name}");
    }
    let all = Reason::ALL.len() * 2 + FetchOutcome::ALL.len();
    assert!(published.len() > all, "{published:?}");
}

#[test]
fn local_stack_names_metrics_as_istio_does() {
    let envoy: Value = serde_saphyr::from_str(&support::read("envoy/envoy.yaml")).expect("YAML");
    let tag = json!([{"tag_name": "wasm_filter", "regex": r"(wasm_filter\.(.+?)\.)"}]);
    assert_eq!(envoy["stats_config"]["stats_tags"], tag);
}

#[test]
fn page_explains_each_alert() {
    let rules: Value =
        serde_saphyr::from_str(&support::read("istio/chart/monitoring/rules.yaml")).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    let alerts: BTreeSet<_> = rules
        .iter()
        .map(|rule| {
            format!(
                "`{}` | {}",
                text(&rule["alert"]),
                text(&rule["labels"]["severity"])
            )
        })
        .collect();
    let page = support::read("docs/operations.md");
    let rows: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `AlbOidc"))
        .filter_map(|row| row.split(" | ").next().zip(row.split(" | ").nth(1)))
        .map(|(alert, severity)| format!("`AlbOidc{alert} | {severity}"))
        .collect();
    assert_eq!(rows, alerts);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

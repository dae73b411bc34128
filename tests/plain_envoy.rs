//! `envoy/ecs/envoy.yaml`, a configuration of Envoy for a real load balancer, as it is but for
//! addresses, ports and the files of module and authorities. The image is not built here.

use serde_json::Value;
use support::envoy::{Envoy, Setup};
use support::parties::{KEY_SERVER, Parties, spoofed};
use support::repository;

/// The application, in the configuration.
const SERVICE: (&str, u16) = ("127.0.0.1", 8080);

fn config() -> Value {
    let path = repository("envoy/ecs/envoy.yaml");
    let text = std::fs::read_to_string(path).expect("the configuration");
    serde_saphyr::from_str(&text).expect("YAML")
}

/// Envoy with `config`, and the parties around it.
async fn start(mut config: Value) -> (Envoy, Parties) {
    let parties = Parties::start(KEY_SERVER).await;
    parties.point(&mut config, SERVICE);
    let (upstream, keys) = (parties.upstream.address(), parties.keys.address());
    let setup = Setup {
        bootstrap: Some(config),
        ..Setup::new(&support::default_envoy(), upstream, keys)
    };
    (Envoy::must_start(&setup).await, parties)
}

#[tokio::test]
async fn ecs_configuration_passes_the_core_rows() {
    let (envoy, parties) = start(config()).await;
    let gateway = envoy.listener("gateway").await.expect("the listener");
    parties.pass_core_rows(gateway, &["/"], "envoy/ecs").await;
    envoy.stop().await;
}

#[tokio::test]
async fn ecs_interlock_denies_requests_without_the_filter() {
    let mut config = config();
    let manager = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
        ["typed_config"];
    let filters = manager["http_filters"].as_array_mut().expect("filters");
    let all = filters.len();
    filters.retain(|filter| filter["name"] != "alb-oidc");
    assert_eq!(filters.len() + 1, all);
    let (envoy, parties) = start(config).await;
    let gateway = envoy.listener("gateway").await.expect("the listener");
    let request = spoofed("/", Some(&parties.token()));
    let (reply, user) = parties.ask(gateway, &request).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (403, "RBAC: access denied")
    );
    assert_eq!(user, None);
    envoy.stop().await;
}

//! Workers share fetched keys, and keys survive a new configuration. On the newest Envoy, with two
//! workers.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::client::{Request, send};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, write_listeners};
use support::key_server::{Answer, KeyServer};
use support::token::{Key, TokenSpec};
use support::upstream::Upstream;

fn config(prefix: &str) -> Value {
    let mut config = gateway_config();
    config["userId"] = json!({"prefix": prefix});
    config
}

#[tokio::test]
async fn one_worker_fetches_for_all_configurations() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("listeners.json");
    write_listeners(&file, 1, &[Plugin::new("gateway", config("old:"))]);
    let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
    let setup = Setup {
        concurrency: 2,
        watched_listeners: Some(file.clone()),
        ..Setup::new(
            &support::default_envoy(),
            upstream.address(),
            keys.address(),
        )
    };
    let envoy = Envoy::must_start(&setup).await;
    let (kid, key) = (uuid::Uuid::new_v4().to_string(), Key::generate());
    keys.publish(&format!("/{kid}"), &key, Answer::default());

    // Each token is new, so no worker has cached it. Each connection is new, so the kernel spreads
    // them.
    let user = async |number: usize| {
        let token = TokenSpec::of(&format!("user-{number}@example.com"))
            .mint(&kid, &key)
            .text;
        let address = envoy.listener("gateway").await.expect("the listener");
        let request = Request::get(
            "/",
            &[("host", "gateway.test"), ("x-amzn-oidc-data", &token)],
        );
        let reply = send(address, &request).await.expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.body);
        upstream
            .take_seen()
            .last()
            .expect("a request upstream")
            .header("kubeflow-userid")
            .join(",")
    };
    for number in 0..40 {
        assert_eq!(user(number).await, format!("old:user-{number}@example.com"));
    }
    let connections = envoy
        .stats("worker_._downstream_cx_total|worker_.\\.downstream_cx_total")
        .await;
    let used = connections
        .iter()
        .filter(|(name, count)| name.starts_with("listener.127") && **count > 0)
        .count();
    assert_eq!(used, 2, "the connections of {connections:?}");
    assert_eq!(keys.fetches().len(), 1, "both workers fetched the key");

    keys.publish(
        &format!("/{kid}"),
        &key,
        Answer {
            status: 500,
            ..Answer::default()
        },
    );
    write_listeners(&file, 2, &[Plugin::new("gateway", config("new:"))]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut number = 100;
    while !user(number).await.starts_with("new:") {
        assert!(
            Instant::now() < deadline,
            "the new configuration does not take over:\n{}",
            envoy.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        number += 1;
    }
    for number in 200..240 {
        assert_eq!(user(number).await, format!("new:user-{number}@example.com"));
    }
    assert_eq!(
        keys.fetches().len(),
        1,
        "the new configuration asked a key server that is down"
    );
    envoy.stop().await;
}

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

/// One worker whose keys have a TTL of a second, and its key server.
struct Gateway {
    folder: tempfile::TempDir,
    upstream: Upstream,
    keys: KeyServer,
    envoy: Envoy,
    kid: String,
    key: Key,
    configurations: u32,
}

impl Gateway {
    async fn start() -> Gateway {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("listeners.json");
        write_listeners(&file, 1, &[Plugin::new("gateway", Gateway::config(0))]);
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let setup = Setup {
            watched_listeners: Some(file),
            ..Setup::new(
                &support::default_envoy(),
                upstream.address(),
                keys.address(),
            )
        };
        Gateway {
            envoy: Envoy::must_start(&setup).await,
            folder,
            upstream,
            keys,
            kid: uuid::Uuid::new_v4().to_string(),
            key: Key::generate(),
            configurations: 0,
        }
    }

    fn config(number: u32) -> Value {
        let mut config = config(&format!("{number}:"));
        config["publicKeys"]["cacheTtlSeconds"] = json!(1);
        config["publicKeys"]["timeoutMs"] = json!(200);
        config
    }

    fn key_server_answers(&self, status: u16) {
        let answer = Answer {
            status,
            ..Answer::default()
        };
        let path = format!("/{}", self.kid);
        self.keys.publish(&path, &self.key, answer);
    }

    /// The status and the user of a request with a new token.
    async fn request(&self) -> (u16, String) {
        let token = TokenSpec::of(&format!("{}@example.com", uuid::Uuid::new_v4()));
        let token = token.mint(&self.kid, &self.key).text;
        let headers = [("host", "gateway.test"), ("x-amzn-oidc-data", &token)];
        let address = self.envoy.listener("gateway").await.expect("the listener");
        let reply = send(address, &Request::get("/", &headers))
            .await
            .expect("an answer");
        let seen = self.upstream.take_seen();
        let user = seen.last().map(|seen| seen.header("kubeflow-userid"));
        (reply.status, user.unwrap_or_default().join(","))
    }

    /// A new configuration replaces the old one, with a new VM of its own.
    async fn reload(&mut self) {
        self.configurations += 1;
        let number = self.configurations;
        let file = self.folder.path().join("listeners.json");
        let plugin = Plugin::new("gateway", Gateway::config(number));
        write_listeners(&file, number + 1, &[plugin]);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let stats = self.envoy.stats("listener_manager").await;
            let of = |name: &str| stats[&format!("listener_manager.{name}")];
            let updates = of("lds.update_success");
            if updates > i64::from(number) && of("total_listeners_warming") == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{}", self.envoy.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn keys_outlive_an_outage_and_a_reload() {
    let mut gateway = Gateway::start().await;
    gateway.key_server_answers(200);
    assert_eq!(gateway.request().await.0, 200);
    gateway.key_server_answers(500);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    gateway.reload().await;
    let (status, user) = gateway.request().await;
    assert!(status == 200 && user.starts_with("1:"), "{status} {user}");

    // The key server withdraws the key, and fails again.
    gateway.key_server_answers(404);
    let deadline = Instant::now() + Duration::from_secs(20);
    while gateway.request().await.0 != 401 {
        assert!(Instant::now() < deadline, "the withdrawn key is still used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gateway.key_server_answers(500);
    gateway.reload().await;
    assert_eq!(gateway.request().await.0, 503);
    gateway.envoy.stop().await;
}

//! Workers share fetched keys, and keys survive a new configuration. On the newest Envoy, with two
//! workers.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::client::{Request, send};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, write_listeners};
use support::key_server::{Answer, KeyServer, Signer};
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

/// One worker with these plugins, whose keys have a TTL of a second, and their key server. Plugins
/// share keys as workers do, and a request chooses its plugin.
struct Gateway {
    plugins: &'static [&'static str],
    timeout: Duration,
    folder: tempfile::TempDir,
    upstream: Upstream,
    keys: KeyServer,
    envoy: Envoy,
    signer: Signer,
    configurations: u32,
}

impl Gateway {
    /// `timeout` is that of a fetch.
    async fn start(plugins: &'static [&'static str], timeout: Duration) -> Gateway {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        write_listeners(
            &folder.path().join("listeners.json"),
            1,
            &Gateway::listeners(plugins, timeout, 0),
        );
        let setup = Setup {
            watched_listeners: Some(folder.path().join("listeners.json")),
            ..Setup::new(
                &support::default_envoy(),
                upstream.address(),
                keys.address(),
            )
        };
        Gateway {
            plugins,
            timeout,
            envoy: Envoy::must_start(&setup).await,
            folder,
            upstream,
            signer: keys.signer(Answer::default()),
            keys,
            configurations: 0,
        }
    }

    fn listeners(plugins: &[&str], timeout: Duration, number: u32) -> Vec<Plugin> {
        let mut config = config(&format!("{number}:"));
        config["publicKeys"]["cacheTtlSeconds"] = json!(1);
        config["publicKeys"]["timeoutMs"] = json!(timeout.as_millis());
        let plugin = |name: &&str| Plugin::new(name, &config);
        plugins.iter().map(plugin).collect()
    }

    fn key_server_answers(&self, answer: Answer) {
        let Signer { key, .. } = &self.signer;
        self.keys.publish(&self.signer.path(), key, answer);
    }

    /// The status and the user of a request with a new token.
    async fn request(&self, plugin: &str) -> (u16, String) {
        let token = TokenSpec::of(&format!("{}@example.com", uuid::Uuid::new_v4()));
        let token = token.mint(&self.signer.kid, &self.signer.key).text;
        let headers = [("host", "gateway.test"), ("x-amzn-oidc-data", &token)];
        let address = self.envoy.listener(plugin).await.expect("the listener");
        let reply = send(address, &Request::get("/", &headers))
            .await
            .expect("an answer");
        let seen = self.upstream.take_seen();
        let user = seen.last().map(|seen| seen.header("kubeflow-userid"));
        (reply.status, user.unwrap_or_default().join(","))
    }

    /// Sends requests until one is denied, with this status.
    async fn until_denied(&self, plugin: &str, status: u16) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (found, _) = self.request(plugin).await;
            if found != 200 {
                assert_eq!(found, status, "{plugin}");
                return;
            }
            assert!(Instant::now() < deadline, "{plugin} still uses the key");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends requests until one causes a fetch that the key server has not answered yet.
    async fn until_fetching(&self, plugin: &str) {
        let before = self.keys.fetches_of(&self.signer);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.keys.fetches_of(&self.signer) == before {
            assert_eq!(self.request(plugin).await.0, 200, "{plugin}");
            assert!(Instant::now() < deadline, "{plugin} refreshes no key");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A new configuration replaces the old one, with a new VM of its own.
    async fn reload(&mut self) {
        self.configurations += 1;
        let number = self.configurations;
        let file = self.folder.path().join("listeners.json");
        let plugins = Gateway::listeners(self.plugins, self.timeout, number);
        write_listeners(&file, number + 1, &plugins);
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

fn status(status: u16) -> Answer {
    Answer {
        status,
        ..Answer::default()
    }
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn keys_outlive_an_outage_and_a_reload() {
    let mut gateway = Gateway::start(&["gateway"], SHORT).await;
    assert_eq!(gateway.request("gateway").await.0, 200);
    gateway.key_server_answers(status(500));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    gateway.reload().await;
    let (found, user) = gateway.request("gateway").await;
    assert!(found == 200 && user.starts_with("1:"), "{found} {user}");

    // The key server withdraws the key, and fails again.
    gateway.key_server_answers(status(404));
    gateway.until_denied("gateway", 401).await;
    gateway.key_server_answers(status(500));
    gateway.reload().await;
    assert_eq!(gateway.request("gateway").await.0, 503);
    gateway.envoy.stop().await;
}

#[tokio::test]
async fn withdrawal_reaches_a_plugin_whose_refresh_fails() {
    let gateway = Gateway::start(&["one", "other"], SHORT).await;
    assert_eq!(gateway.request("one").await.0, 200);
    assert_eq!(gateway.request("other").await.0, 200);
    assert_eq!(gateway.keys.fetches_of(&gateway.signer), 1, "a shared key");
    gateway.key_server_answers(status(404));
    gateway.until_denied("one", 401).await;
    gateway.key_server_answers(status(500));
    gateway.until_denied("other", 503).await;
    gateway.envoy.stop().await;
}

#[tokio::test]
async fn slow_answer_clears_no_withdrawal() {
    let mut gateway = Gateway::start(&["slow", "quick"], Duration::from_secs(2)).await;
    assert_eq!(gateway.request("slow").await.0, 200);
    assert_eq!(gateway.request("quick").await.0, 200);
    gateway.key_server_answers(Answer {
        held: true,
        ..Answer::default()
    });
    gateway.until_fetching("slow").await;
    gateway.key_server_answers(status(404));
    gateway.until_denied("quick", 401).await;
    gateway.key_server_answers(status(500));
    gateway.keys.release(&gateway.signer);
    gateway.until_denied("slow", 503).await;
    gateway.reload().await;
    let replies = tokio::join!(gateway.request("slow"), gateway.request("quick"));
    assert_eq!((replies.0.0, replies.1.0), (503, 503));
    gateway.envoy.stop().await;
}

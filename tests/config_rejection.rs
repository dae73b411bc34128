//! A bad configuration starts no proxy and replaces no good configuration, on each supported Envoy.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::client::{Request, send};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, write_listeners};
use support::key_server::{Answer, KeyServer};
use support::token::{ISSUER, Key, TokenSpec};
use support::upstream::Upstream;

/// The deadline for Envoy to try a listener from its file.
const UPDATE: Duration = Duration::from_secs(20);

/// A bad configuration, and the words that its log message must contain.
struct Bad {
    config: String,
    env: BTreeMap<String, String>,
    said: Vec<&'static str>,
}

fn bad_configs() -> Vec<Bad> {
    let text = |config: &str, said: &[&'static str]| Bad {
        config: config.into(),
        env: BTreeMap::new(),
        said: said.to_vec(),
    };
    // The good configuration with one member set; null removes it.
    let with = |pointer: &str, value: Value, said: &[&'static str]| {
        let mut config = gateway_config();
        let (object, member) = pointer.rsplit_once('/').unwrap();
        let object = config
            .pointer_mut(object)
            .and_then(Value::as_object_mut)
            .unwrap();
        if value.is_null() {
            drop(object.remove(member))
        } else {
            drop(object.insert(member.into(), value))
        }
        Bad {
            config: config.to_string(),
            env: BTreeMap::new(),
            said: said.to_vec(),
        }
    };
    vec![
        text("", &["loadBalancers"]),
        with("/loadBalancer", json!([]), &["loadBalancer:"]),
        with(
            "/userId",
            json!({"header": "x-amzn-oidc-data"}),
            &["userId.header", "x-amzn-oidc-data"],
        ),
        text("loadBalancers: []", &["JSON"]),
        text("[]", &["a JSON object"]),
        with("/loadBalancers", Value::Null, &["loadBalancers:"]),
        with("/loadBalancers", json!([]), &["loadBalancers:"]),
        with("/userId", json!({"claim": "email"}), &["userId.claim:"]),
        with(
            "/loadBalancers/0/arn",
            json!("arn:aws:elasticloadbalancing:us-west-2:1:loadbalancer/net/x/1"),
            &["loadBalancers[0].arn", "loadbalancer/net/x"],
        ),
        with(
            "/loadBalancers/0/issuer",
            Value::Null,
            &["loadBalancers[0].issuer"],
        ),
        with(
            "/userId",
            json!({"transformers": [{"matches": "(", "replaces": ""}]}),
            &["userId.transformers[0].matches"],
        ),
        with(
            "/userId",
            json!({"header": ":path"}),
            &["userId.header", ":path"],
        ),
        with(
            "/userId",
            json!({"header": "Host"}),
            &["userId.header", "Host"],
        ),
        with(
            "/logout",
            json!({"path": "/logout"}),
            &["logout.path requires `logout.redirectTo`"],
        ),
        with(
            "/logout",
            json!({"path": "/logout", "redirectTo": "http://evil.test/"}),
            &["logout.redirectTo", "http://evil.test/"],
        ),
        with(
            "/rules",
            json!([{"match": {"paths": [{"regex": "[^/]{1,1000}xN"}]}}]),
            &[
                "rules[0].match.paths[0].regex",
                "in total), expected",
                "at most 4096 compiled bytes",
            ],
        ),
        with(
            "/publicKeys/timeoutMs",
            json!(1),
            &["publicKeys.timeoutMs", "100"],
        ),
        with(
            "/clockSkewSeconds",
            json!("30"),
            &["clockSkewSeconds", "\"30\""],
        ),
        with(
            "/loadBalancers/0/clientId",
            json!(12e3),
            &[
                "loadBalancers[0].clientId",
                "12000.0",
                "null for any: put the value in quotes",
            ],
        ),
        with(
            "/pages",
            json!({"contact": "javascript:alert(1)"}),
            &["pages.contact", "javascript:alert(1)", "https URL"],
        ),
        Bad {
            env: BTreeMap::from([("ALB_OIDC_VERIFIER".to_owned(), "module".to_owned())]),
            ..with(
                "/accessToken",
                json!({"issuer": ISSUER}),
                &["accessToken:", "RS256", "verify_signature"],
            )
        },
    ]
}

#[tokio::test]
async fn bad_config_does_not_start() {
    for envoy in support::envoys() {
        // Starting is slow, so the other configurations are only tried as updates.
        for bad in bad_configs().into_iter().take(3) {
            let what = format!("envoy {}, {:?}", support::version(&envoy), bad.config);
            let closed = ([127, 0, 0, 1], 1).into();
            let setup = Setup {
                plugins: vec![bad.plugin()],
                ..Setup::new(&envoy, closed, closed)
            };
            let Err(failed) = Envoy::start(&setup).await else {
                panic!("{what}: it started")
            };
            assert!(
                failed.status.is_some_and(|status| !status.success()),
                "{what}: {:?}",
                failed.status
            );
            bad.check_log(&what, &failed.log);
        }
    }
}

#[tokio::test]
async fn bad_config_does_not_replace_a_good_one() {
    for envoy in support::envoys() {
        Update::start(&envoy).await.run().await;
    }
}

impl Bad {
    fn plugin(&self) -> Plugin {
        Plugin {
            env: self.env.clone(),
            ..Plugin::new("gateway", &self.config)
        }
    }

    /// Checks the filter's log lines for the expected words.
    fn check_log(&self, what: &str, log: &str) {
        let rejections: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("alb-oidc: config rejected"))
            .collect();
        let said = |word: &&str| rejections.iter().any(|line| line.contains(*word));
        assert!(
            !rejections.is_empty(),
            "{what}: the log names no mistake:\n{log}"
        );
        for word in &self.said {
            assert!(said(word), "{what}: the log does not say {word}:\n{log}");
        }
    }
}

/// An Envoy that reads its listener from a file.
struct Update {
    what: String,
    envoy: Envoy,
    file: PathBuf,
    _folder: tempfile::TempDir,
    _keys: KeyServer,
    upstream: Upstream,
    token: String,
}

impl Update {
    async fn start(binary: &Path) -> Update {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("listeners.json");
        write_listeners(&file, 1, &[Plugin::new("gateway", gateway_config())]);
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let (kid, key) = (uuid::Uuid::new_v4().to_string(), Key::generate());
        keys.publish(&format!("/{kid}"), &key, Answer::default());
        let setup = Setup {
            watched_listeners: Some(file.clone()),
            ..Setup::new(binary, upstream.address(), keys.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        let what = format!("envoy {}", support::version(binary));
        let token = TokenSpec::of("ann@example.com").mint(&kid, &key).text;
        Update {
            what,
            envoy,
            file,
            _folder: folder,
            _keys: keys,
            upstream,
            token,
        }
    }

    async fn run(self) {
        self.wait_for("update_success", 1).await;
        assert_eq!(
            self.user().await,
            "ann@example.com",
            "{}: the first configuration",
            self.what
        );

        for (count, bad) in (1..).zip(bad_configs()) {
            let what = format!("{}, {:?}", self.what, bad.config);
            let logged = self.envoy.log().len();
            write_listeners(&self.file, count + 1, &[bad.plugin()]);
            self.wait_for("update_rejected", count.into()).await;
            assert_eq!(self.user().await, "ann@example.com", "{what}");
            bad.check_log(&what, &self.envoy.log()[logged..]);
        }

        let mut good = gateway_config();
        good["userId"] = json!({"prefix": "user:"});
        write_listeners(&self.file, 100, &[Plugin::new("gateway", good)]);
        self.wait_for("update_success", 2).await;
        // A worker switches to the new listener shortly after the main thread.
        let deadline = Instant::now() + UPDATE;
        while self.user().await != "user:ann@example.com" {
            assert!(
                Instant::now() < deadline,
                "{}: the good configuration does not take over",
                self.what
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.envoy.stop().await;
    }

    /// The user id that upstream receives for a valid token.
    async fn user(&self) -> String {
        let address = self.envoy.listener("gateway").await.expect("the listener");
        let request = Request::get(
            "/",
            &[("host", "gateway.test"), ("x-amzn-oidc-data", &self.token)],
        );
        let reply = send(address, &request)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.what));
        assert_eq!(reply.status, 200, "{}: {}", self.what, reply.body);
        let seen = self.upstream.take_seen();
        seen.last()
            .expect("a request upstream")
            .header("kubeflow-userid")
            .join(",")
    }

    /// Waits until Envoy has counted `count` listener updates with this outcome.
    async fn wait_for(&self, outcome: &str, count: i64) {
        let name = format!("listener_manager.lds.{outcome}");
        let deadline = Instant::now() + UPDATE;
        while self.envoy.stats("listener_manager.lds").await.get(&name) != Some(&count) {
            assert!(
                Instant::now() < deadline,
                "{}: {name} is not {count}:\n{}",
                self.what,
                self.envoy.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

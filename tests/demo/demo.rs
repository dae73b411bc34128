//! `make demo`: a real Envoy with the module, `alb-oidc simulate` as its load balancer, and an echo
//! service, all on local ports. Sends an admitted, forged and spoofed requests, prints each
//! outcome, and fails if one is not as expected.

use serde_json::Value;
use std::process::ExitCode;
use support::client::Reply;
use support::envoy::{Envoy, gateway_config};
use support::simulator::{Browser, Simulator};
use support::token::{Key, TokenSpec};
use support::upstream::Upstream;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// A load balancer in the attacker's account. AWS publishes its keys on the same key server.
const ATTACKERS_ARN: &str =
    "arn:aws:elasticloadbalancing:us-west-2:999999999999:loadbalancer/app/evil/0123456789abcdef";

#[tokio::main]
async fn main() -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("a signal handler");
    // The first branch to end drops the others, with all processes that the demo started.
    tokio::select! {
        as_expected = demo() => if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        _ = tokio::signal::ctrl_c() => stopped(),
        _ = terminated.recv() => stopped(),
    }
}

fn stopped() -> ExitCode {
    println!("\nstopped");
    ExitCode::from(130)
}

async fn demo() -> bool {
    let stage = Stage::start().await;
    let mut ann = Browser::default();
    let results = [
        stage.admitted(&mut ann).await,
        stage.forged().await,
        stage.spoofed(&mut ann).await,
    ];
    stage.envoy.stop().await;
    let as_expected = results.iter().all(|result| *result);
    println!(
        "\n{}",
        if as_expected {
            "Every outcome is as expected."
        } else {
            "NOT every outcome is as expected."
        }
    );
    as_expected
}

/// The running programs.
struct Stage {
    load_balancer: Simulator,
    envoy: Envoy,
    /// The gateway's own URL, past the load balancer.
    gateway: String,
    upstream: Upstream,
}

impl Stage {
    async fn start() -> Stage {
        let binary = support::default_envoy();
        let upstream = Upstream::start().await;
        let (load_balancer, envoy) =
            Simulator::with_gateway(&binary, gateway_config(), upstream.address()).await;
        let gateway = envoy
            .listener("gateway")
            .await
            .expect("the gateway's listener");
        let gateway = format!("http://localhost:{}/", gateway.port());
        println!(
            "load balancer  {}  alb-oidc simulate",
            load_balancer.url("/")
        );
        println!(
            "gateway        {gateway}  Envoy {} with alb_oidc_filter.wasm",
            support::version(&binary)
        );
        println!(
            "upstream       http://{}/  echo service",
            upstream.address()
        );
        Stage {
            load_balancer,
            envoy,
            gateway,
            upstream,
        }
    }

    async fn admitted(&self, ann: &mut Browser) -> bool {
        println!("\n1. Admitted: ann@example.com signs in at the load balancer");
        let (_, page) = ann
            .sign_in(&self.load_balancer.url("/"), "name=ann@example.com")
            .await;
        self.admitted_as_ann(&page)
    }

    async fn forged(&self) -> bool {
        println!("\n2. Forged: tokens for admin@example.com, sent directly to the gateway");
        let genuine = attackers_token().await;
        let foreign = self
            .denied(
                "signed by a load balancer of the attacker's",
                &genuine,
                "signer-unknown",
            )
            .await;
        let forged = TokenSpec::of("admin@example.com")
            .mint(&self.key_id().await, &Key::generate())
            .text;
        let forged = self
            .denied(
                "naming our load balancer, signed with another key",
                &forged,
                "signature-invalid",
            )
            .await;
        foreign & forged
    }

    async fn spoofed(&self, ann: &mut Browser) -> bool {
        println!("\n3. Spoofed: a client sends the header kubeflow-userid: admin@example.com");
        let spoofed = ("kubeflow-userid", "admin@example.com");
        println!("   Ann, through the load balancer");
        ann.headers = vec![(spoofed.0.into(), spoofed.1.into())];
        let page = ann.get(&self.load_balancer.url("/")).await;
        let replaced = self.admitted_as_ann(&page);
        println!("   a client without a token, directly to the gateway");
        let reply = Browser::sending(&[spoofed]).get(&self.gateway).await;
        replaced & self.denied_for(&reply, "token-missing")
    }

    /// The id of the key that our load balancer signs with. Its page lists the current key first.
    async fn key_id(&self) -> String {
        let page = Browser::default()
            .get(&self.load_balancer.elsewhere("/"))
            .await
            .body;
        let mut links = page
            .split("href=\"/")
            .filter_map(|link| link.split('"').next());
        links
            .find(|link| Uuid::parse_str(link).is_ok())
            .expect("a key id on the page")
            .to_owned()
    }

    async fn denied(&self, what: &str, token: &str, reason: &str) -> bool {
        println!("   {what}");
        let reply = Browser::sending(&[("x-amzn-oidc-data", token)])
            .get(&self.gateway)
            .await;
        self.denied_for(&reply, reason)
    }

    /// 200: upstream received only Ann's user id, and no token or session cookie.
    fn admitted_as_ann(&self, reply: &Reply) -> bool {
        let seen = self.upstream.take_seen();
        let users: Vec<&str> = seen
            .iter()
            .flat_map(|seen| seen.header("kubeflow-userid"))
            .collect();
        let clean = seen.iter().all(|seen| {
            seen.header("x-amzn-oidc-data").is_empty()
                && seen.header("x-amzn-oidc-accesstoken").is_empty()
                && seen
                    .header("cookie")
                    .iter()
                    .all(|cookies| !cookies.contains("AWSELBAuthSessionCookie"))
        });
        let outcome = format!(
            "{}, upstream received kubeflow-userid: {}, {} token or session cookie",
            reply.status,
            users.join(" and "),
            if clean { "no" } else { "a" }
        );
        show(
            &outcome,
            reply.status == 200 && users == ["ann@example.com"] && clean,
        )
    }

    /// 401 with this reason: upstream received nothing.
    fn denied_for(&self, reply: &Reply, reason: &str) -> bool {
        let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        let seen = self.upstream.take_seen();
        let upstream = if seen.is_empty() {
            "upstream received nothing"
        } else {
            "upstream RECEIVED the request"
        };
        let outcome = format!(
            "{}, reason {}, {upstream}",
            reply.status,
            body["reason"].as_str().unwrap_or("unknown")
        );
        show(
            &outcome,
            reply.status == 401 && body["reason"] == reason && seen.is_empty(),
        )
    }
}

/// A genuine token for admin@example.com of the attacker's own load balancer. Its target is a
/// service of the attacker's, which receives the token.
async fn attackers_token() -> String {
    let service = Upstream::start().await;
    let load_balancer = Simulator::start(service.address(), &["--arn", ATTACKERS_ARN]).await;
    Browser::default()
        .sign_in(&load_balancer.url("/"), "name=admin@example.com&groups=")
        .await;
    let seen = service.take_seen().pop().expect("a request");
    seen.header("x-amzn-oidc-data")
        .first()
        .expect("a token")
        .to_string()
}

fn show(outcome: &str, as_expected: bool) -> bool {
    println!(
        "   -> {outcome}{}",
        if as_expected {
            ""
        } else {
            "  <- NOT AS EXPECTED"
        }
    );
    as_expected
}

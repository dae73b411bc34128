//! `make demo`: a real Envoy with the module, a load balancer that signs, a key server and an echo service, all on local
//! ports. Sends a handful of requests, prints what came of each, and fails if it is not what the filter promises.

// A demo may panic: that is how it fails.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod alb;
#[path = "../support/mod.rs"]
mod support;

use alb::Alb;
use serde_json::Value;
use std::net::SocketAddr;
use std::process::ExitCode;
use support::client::{Reply, Request, send};
use support::envoy::{Envoy, Plugin, Setup, gateway_config};
use support::key_server::{Answer, KeyServer};
use support::token::{Key, TokenSpec};
use support::upstream::Upstream;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// The load balancer that anyone can make in an account of their own. Its keys are on the same key server as ours.
const ATTACKERS_ARN: &str =
    "arn:aws:elasticloadbalancing:us-west-2:999999999999:loadbalancer/app/evil/0123456789abcdef";

#[tokio::main]
async fn main() -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("a signal handler");
    // Whichever ends first drops the other, and with it Envoy and the servers.
    tokio::select! {
        as_promised = demo() => if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE },
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
    println!(
        "client -> load balancer {} -> gateway {} -> echo {}",
        stage.alb.address(),
        stage.gateway,
        stage.upstream.address()
    );
    let results = [stage.admitted().await, stage.forged().await, stage.spoofed().await];
    stage.envoy.stop().await;
    let as_promised = results.iter().all(|result| *result);
    println!("\n{}", if as_promised { "Every outcome is as promised." } else { "NOT every outcome is as promised." });
    as_promised
}

/// All that takes part.
struct Stage {
    envoy: Envoy,
    gateway: SocketAddr,
    alb: Alb,
    upstream: Upstream,
    attackers_key: Key,
    attackers_kid: String,
    alb_kid: String,
    _keys: KeyServer,
}

impl Stage {
    async fn start() -> Stage {
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let (key, attackers_key) = (Key::generate(), Key::generate());
        let (alb_kid, attackers_kid) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        keys.publish(&format!("/{alb_kid}"), &key, Answer::default());
        keys.publish(&format!("/{attackers_kid}"), &attackers_key, Answer::default());
        let binary = support::default_envoy();
        println!("alb_oidc_filter.wasm in Envoy {}", support::version(&binary));
        let setup = Setup {
            plugins: vec![Plugin::new("gateway", gateway_config())],
            ..Setup::new(&binary, upstream.address(), keys.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        let gateway = envoy.listener("gateway").await.expect("the gateway's listener");
        let alb = Alb::start(gateway, &alb_kid, &key).await;
        Stage { envoy, gateway, alb, upstream, attackers_key, attackers_kid, alb_kid, _keys: keys }
    }

    async fn admitted(&self) -> bool {
        println!("\n1. Ann signs in at the load balancer");
        let sign_in = self
            .request(
                "GET /?sign-in=ann@example.com to the load balancer",
                self.alb.address(),
                Request::get("/?sign-in=ann@example.com", &[]),
            )
            .await;
        let cookie = sign_in
            .header("set-cookie")
            .first()
            .and_then(|cookie| cookie.split(';').next())
            .unwrap_or_default()
            .to_owned();
        let signed_in = self.show("a redirect and a session cookie", sign_in.status == 302 && !cookie.is_empty());
        let page =
            self.request("GET / with that cookie", self.alb.address(), Request::get("/", &[("cookie", &cookie)])).await;
        signed_in & self.reached_as_ann(&page)
    }

    async fn forged(&self) -> bool {
        println!("\n2. Forged tokens for admin@example.com, straight to the gateway");
        let admin = TokenSpec::of("admin@example.com");
        let mut own = admin.clone();
        own.header.insert("signer".into(), ATTACKERS_ARN.into());
        let own = own.mint(&self.attackers_kid, &self.attackers_key).text;
        let by_own =
            self.denied("genuine, but signed by the attacker's own load balancer", &own, "signer-unknown").await;
        let claims_ours = admin.mint(&self.alb_kid, &self.attackers_key).text;
        let by_claim = self
            .denied("claims to be from ours, signed with the attacker's key", &claims_ours, "signature-invalid")
            .await;
        by_own & by_claim
    }

    async fn spoofed(&self) -> bool {
        println!("\n3. The header kubeflow-userid: admin@example.com, sent by a client");
        let spoofed = ("kubeflow-userid", "admin@example.com");
        let headers = [("cookie", "AWSELBAuthSessionCookie-0=ann@example.com"), spoofed];
        let page =
            self.request("by Ann, through the load balancer", self.alb.address(), Request::get("/", &headers)).await;
        let stripped = self.reached_as_ann(&page);
        let refused = self
            .request("by anyone, straight to the gateway, without a token", self.gateway, Request::get("/", &[spoofed]))
            .await;
        stripped & self.refused_for(&refused, "token-missing")
    }

    async fn denied(&self, what: &str, token: &str, reason: &str) -> bool {
        let reply = self.request(what, self.gateway, Request::get("/", &[("x-amzn-oidc-data", token)])).await;
        self.refused_for(&reply, reason)
    }

    async fn request(&self, what: &str, to: SocketAddr, mut request: Request) -> Reply {
        println!("   {what}");
        request.headers.push(("host".into(), "kubeflow.example.com".into()));
        send(to, &request).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// 200, upstream was told that it is Ann and nothing else, and saw neither token nor session.
    fn reached_as_ann(&self, reply: &Reply) -> bool {
        let seen = self.upstream.take_seen();
        let users: Vec<String> =
            seen.iter().flat_map(|seen| seen.header("kubeflow-userid")).map(str::to_owned).collect();
        let clean =
            seen.iter().all(|seen| seen.header("x-amzn-oidc-data").is_empty() && seen.header("cookie").is_empty());
        let outcome = format!(
            "{}, upstream saw kubeflow-userid: {}, {} token or session cookie",
            reply.status,
            users.join(" and "),
            if clean { "no" } else { "a" }
        );
        self.show(&outcome, reply.status == 200 && users == ["ann@example.com"] && clean)
    }

    /// 401 with this reason, and nothing reached upstream.
    fn refused_for(&self, reply: &Reply, reason: &str) -> bool {
        let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        let seen = self.upstream.take_seen();
        let upstream = if seen.is_empty() { "nothing reached upstream" } else { "IT REACHED UPSTREAM" };
        let outcome = format!("{}, reason {}, {upstream}", reply.status, body["reason"].as_str().unwrap_or("unknown"));
        self.show(&outcome, reply.status == 401 && body["reason"] == reason && seen.is_empty())
    }

    fn show(&self, outcome: &str, as_promised: bool) -> bool {
        println!("   -> {outcome}{}", if as_promised { "" } else { "  <- NOT AS PROMISED" });
        as_promised
    }
}

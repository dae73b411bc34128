//! Installation, upgrade, removal: forged requests that a prober sends all the time never reach the
//! upstream as somebody, once the interlock is in place.

use crate::istio::{Kind, NAMESPACE};
use crate::manifests::{changed, only};
use crate::prober::{AT_BROWSERS, AT_MACHINES, MARK, Outcome, Prober, is_impostor, marks};
use crate::release::template;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use support::upstream::Seen;

/// The longest time for which a change of the API may deny genuine requests.
const DENIED_BY_A_SWITCH: Duration = Duration::from_secs(5);
/// From a change of a resource until Envoy has it.
const SETTLED: Duration = Duration::from_millis(1000);

impl World {
    /// Waits until the interlock is in the gateway, and no request is left that came before it.
    async fn until_no_longer_open(&self) {
        self.until_interlocked().await;
        tokio::time::sleep(SETTLED).await;
        self.take_probes();
    }

    /// Forged requests that reached the upstream as somebody since the last call.
    fn take_impostors(&self) -> Vec<Seen> {
        let mut probes = self.take_probes();
        probes.retain(is_impostor);
        probes
    }

    fn no_impostors(&self, step: &str) {
        let impostors = self.take_impostors();
        assert!(impostors.is_empty(), "{step}: {impostors:#?}");
    }

    /// Each of these kinds of forged requests reached the upstream as somebody, at each listener.
    fn is_open(&self, probes: &[&str]) {
        self.is_open_at(&self.listeners(), probes);
    }

    fn is_open_at(&self, listeners: &[SocketAddr], probes: &[&str]) {
        let seen = self.take_impostors();
        let seen: BTreeSet<String> = seen.iter().map(|seen| seen.header(MARK).concat()).collect();
        let expected = marks(listeners, probes);
        let missing: Vec<_> = expected.difference(&seen).collect();
        assert!(missing.is_empty(), "not seen as somebody: {missing:?}");
    }
}

/// The longest time for which a listener admitted no genuine request.
fn longest_denial(outcomes: &[Outcome]) -> Duration {
    let (mut longest, mut denied_since) = (Duration::ZERO, BTreeMap::new());
    for outcome in outcomes.iter().filter(|outcome| !outcome.forged) {
        let since = denied_since.entry(outcome.listener).or_insert(None);
        if let Some(began) = *since {
            longest = longest.max(outcome.at - began);
        }
        *since = match outcome.status {
            Some(200) => None,
            _ => since.or(Some(outcome.at)),
        };
    }
    longest
}

async fn stays_shut_throughout_a_release(kind: Kind) {
    let world = World::start(&[kind]).await;
    let prober = Prober::start(&world.listeners(), &world.signer);
    let first = world.values(kind).await;

    // The control: without the interlock, the prober sees an open gateway.
    let everyone = crate::world::allow_all(kind);
    world.kubernetes.apply(&everyone.to_string()).await;
    tokio::time::sleep(2 * SETTLED).await;
    world.is_open(&AT_BROWSERS);

    world.install(&first).await;
    world.until_no_longer_open().await;
    world.until_admitted().await;
    tokio::time::sleep(SETTLED).await;
    world.no_impostors("install");

    let mut second = world.values(kind).await;
    second["image"]["url"] = json!(world.push_image(b"another").await);
    second["pluginConfig"]["userId"] = json!({"lowercase": true});
    prober.take_outcomes();
    world.upgrade(&second).await;
    tokio::time::sleep(2 * SETTLED).await;
    world.until_admitted().await;
    world.no_impostors("upgrade");
    println!(
        "{kind:?}: upgrade: {:?} denied",
        longest_denial(&prober.take_outcomes())
    );

    let mut third = second.clone();
    third["extension"] = json!("TrafficExtension");
    for (step, values) in [("to TrafficExtension", &third), ("to WasmPlugin", &second)] {
        world.upgrade(values).await;
        tokio::time::sleep(2 * SETTLED).await;
        world.until_admitted().await;
        tokio::time::sleep(SETTLED).await;
        world.no_impostors(step);
        let kinds = ["wasmplugin,trafficextension", "--namespace", NAMESPACE];
        let extensions = world.kubernetes.get(&kinds).await;
        let extensions = extensions["items"].as_array().expect("a list");
        assert_eq!(extensions.len(), 1, "{step}: {extensions:?}");
        assert!(step.ends_with(extensions[0]["kind"].as_str().expect("a kind")));
        let denied = longest_denial(&prober.take_outcomes());
        println!("{kind:?}: {step}: {denied:?} denied");
        assert!(denied <= DENIED_BY_A_SWITCH, "{step}: {denied:?}");
    }

    world.rollback(1).await;
    tokio::time::sleep(2 * SETTLED).await;
    world.until_admitted().await;
    world.no_impostors("rollback");
    println!(
        "{kind:?}: rollback: {:?} denied",
        longest_denial(&prober.take_outcomes())
    );

    world.uninstall().await;
    world.until_shut().await;
    tokio::time::sleep(3 * SETTLED).await;
    world.no_impostors("uninstall");
    // The control: the prober sees a gateway that admits no one.
    assert!(longest_denial(&prober.take_outcomes()) >= 2 * SETTLED);

    world.install(&first).await;
    world.until_admitted().await;
    tokio::time::sleep(SETTLED).await;
    world.no_impostors("install again");

    world.uninstall().await;
    world.until_shut().await;
    world.no_impostors("uninstall again");
    // The operator opens the gateway.
    let interlock = only(&template(&first).await, |object| {
        object["kind"] == "EnvoyFilter"
    });
    world.kubernetes.delete(&interlock).await;
    tokio::time::sleep(2 * SETTLED).await;
    world.is_open(&AT_BROWSERS);
}

#[tokio::test]
async fn classic_gateway_stays_shut_throughout_a_release() {
    stays_shut_throughout_a_release(Kind::Classic).await;
}

#[tokio::test]
async fn gateway_api_gateway_stays_shut_throughout_a_release() {
    stays_shut_throughout_a_release(Kind::GatewayApi).await;
}

/// The name of the part with the routes.
const ROUTES: &str = "routes";

/// Objects of a release that are removed together.
struct Part {
    name: String,
    manifests: String,
}

/// The parts of a release, without its interlock. The objects of all key servers are one part, and
/// those of all routes.
fn parts(rendered: &str) -> Vec<Part> {
    let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in crate::kubernetes::documents(rendered) {
        let kind = object["kind"].as_str().expect("a kind");
        let name = match kind {
            "EnvoyFilter" => continue,
            "ServiceEntry" | "DestinationRule" => "key servers".to_owned(),
            "VirtualService" | "HTTPRoute" | "ReferenceGrant" => ROUTES.to_owned(),
            _ => format!("{kind} {}", object["metadata"]["name"]),
        };
        parts.entry(name).or_default().push(object.to_string());
    }
    let part = |(name, objects): (String, Vec<String>)| Part {
        name,
        manifests: objects.join("\n---\n"),
    };
    parts.into_iter().map(part).collect()
}

/// Every order of removal leads through subsets of the parts. This goes through all of them, in
/// Gray code: each step removes one part, or restores it.
async fn stays_shut_without_any_subset_of_its_parts(kind: Kind) {
    let world = World::start(&[kind]).await;
    let values = world.values(kind).await;
    let rendered = template(&values).await;
    let is_interlock = |object: &Value| object["kind"] == "EnvoyFilter";
    // No other policy denies what the interlock should.
    let everyone = crate::world::allow_all(kind);
    world.kubernetes.apply(&everyone.to_string()).await;
    world.kubernetes.apply(&rendered).await;
    let _prober = Prober::start(&world.listeners(), &world.signer);
    world.until_no_longer_open().await;
    world.until_admitted().await;
    let parts = parts(&rendered);
    let mut removed = 0_u32;
    for step in 1..(1_u32 << parts.len()) {
        let (number, was) = (step.trailing_zeros(), removed);
        removed ^= 1 << number;
        let part = &parts[number as usize];
        if removed > was {
            world.kubernetes.delete(&part.manifests).await;
        } else {
            world.kubernetes.apply(&part.manifests).await;
        }
        tokio::time::sleep(SETTLED).await;
        let missing: Vec<&str> = (0..parts.len())
            .filter(|number| removed & (1 << number) != 0)
            .map(|number| parts[number].name.as_str())
            .collect();
        world.no_impostors(&format!("without {missing:?}"));
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    println!("{kind:?}: shut without each subset of {names:?}");
    world.kubernetes.apply(&rendered).await;
    world.until_admitted().await;

    // The control: without the interlock, the prober sees what the parts do.
    let interlock = only(&rendered, is_interlock);
    world.kubernetes.delete(&interlock).await;
    tokio::time::sleep(2 * SETTLED).await;
    world.no_impostors("the filter alone");
    for part in parts.iter().filter(|part| part.name != ROUTES) {
        world.kubernetes.delete(&part.manifests).await;
    }
    tokio::time::sleep(2 * SETTLED).await;
    world.take_probes();
    tokio::time::sleep(SETTLED).await;
    world.is_open(&[&AT_BROWSERS[..], &AT_MACHINES].concat());
}

#[tokio::test]
async fn classic_gateway_stays_shut_without_any_subset_of_parts() {
    stays_shut_without_any_subset_of_its_parts(Kind::Classic).await;
}

#[tokio::test]
async fn gateway_api_gateway_stays_shut_without_any_subset_of_parts() {
    stays_shut_without_any_subset_of_its_parts(Kind::GatewayApi).await;
}

/// The configuration of the interlock's RBAC filter.
fn rbac(interlock: &mut Value) -> &mut Value {
    &mut interlock["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]
}

fn principals(interlock: &mut Value) -> &mut Value {
    &mut rbac(interlock)["rules"]["policies"]["passed-the-filter"]["principals"]
}

/// A way to break the interlock that Envoy accepts.
struct Breakage {
    name: &'static str,
    change: fn(&mut Value),
    /// The ports that stay shut.
    shut: &'static [u16],
}

const fn breakage(name: &'static str, change: fn(&mut Value)) -> Breakage {
    Breakage {
        name,
        change,
        shut: &[],
    }
}

static BREAKAGES: [Breakage; 6] = [
    breakage("admits every request", |interlock| {
        *principals(interlock) = json!([{"any": true}]);
    }),
    breakage("admits requests without the state", |interlock| {
        let principals = principals(interlock);
        *principals = json!([{"not_id": principals[0]}]);
    }),
    breakage("denies nothing, only logs", |interlock| {
        let config = rbac(interlock);
        config["shadow_rules"] = config["rules"].take();
    }),
    breakage("is for sidecars", |interlock| {
        interlock["spec"]["configPatches"][0]["match"]["context"] = json!("SIDECAR_INBOUND");
    }),
    breakage("selects other pods", |interlock| {
        interlock["spec"]["workloadSelector"]["labels"] = json!({"istio": "egressgateway"});
    }),
    Breakage {
        shut: &[8080],
        ..breakage("is on one port only", |interlock| {
            let patched = &mut interlock["spec"]["configPatches"][0];
            patched["match"]["listener"]["portNumber"] = json!(8080);
        })
    },
];

/// The other tests wait until `config_dump` shows the interlock. The prober does not depend on
/// that.
#[tokio::test]
async fn prober_finds_each_broken_interlock() {
    let world = World::start(&[Kind::Classic]).await;
    let rendered = template(&world.values(Kind::Classic).await).await;
    let intact = only(&rendered, |object| object["kind"] == "EnvoyFilter");
    let _prober = Prober::start(&world.listeners(), &world.signer);
    for Breakage { name, change, shut } in &BREAKAGES {
        world.kubernetes.apply(&intact).await;
        world.until_no_longer_open().await;
        tokio::time::sleep(SETTLED).await;
        world.no_impostors("intact");

        let broken = changed(&intact, |interlock| {
            change(interlock);
            true
        });
        world.kubernetes.apply(&broken).await;
        tokio::time::sleep(2 * SETTLED).await;
        world.take_probes();
        tokio::time::sleep(SETTLED).await;
        println!("the interlock {name}");
        let mut open = world.listeners();
        open.retain(|listener| !shut.contains(&listener.port()));
        world.is_open_at(&open, &AT_BROWSERS);
    }
}

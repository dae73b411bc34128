//! A flood of invented key ids does not keep a genuine new key from being fetched: hundreds of seeded runs of the key ring for
//! each attack, and each attack once against a real Envoy.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use alb_oidc_filter::config::Config;
use alb_oidc_filter::keys::{Answer, ClientAddress, Found, KeyName, KeyRing};
use alb_oidc_filter::signature::{P256Key, PublicKey};
use alb_oidc_filter::time::Timestamp;
use alb_oidc_filter::token::KeyId;
use fastrand::Rng;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use support::envoy::gateway_config;
use support::token::Key;

mod support;

/// The requests of an attacker who has one address.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// A new id with each request, so many requests a second.
    EachOnce(u64),
    /// So many ids in turn, 1,000 requests a second.
    InTurn(u32),
    /// A new id with each request, and the client hangs up at once.
    HangUp,
    /// A new id with every 64 requests.
    FillEach,
    /// The genuine id with every other request, a new one with the rest.
    Genuine,
}

const ATTACKS: [Attack; 9] = [
    Attack::EachOnce(1),
    Attack::EachOnce(100),
    Attack::EachOnce(1000),
    Attack::InTurn(5),
    Attack::InTurn(256),
    Attack::InTurn(2000),
    Attack::HangUp,
    Attack::FillEach,
    Attack::Genuine,
];

impl Attack {
    /// The attacker's requests in one millisecond.
    fn requests(self, millis: u64) -> u64 {
        match self {
            Attack::EachOnce(rate) => u64::from(millis.is_multiple_of(1000 / rate)),
            _ => 1,
        }
    }

    /// The number of the id of the attacker's request `count`; `None`: the genuine one.
    fn id(self, count: u32) -> Option<u32> {
        match self {
            Attack::EachOnce(_) | Attack::HangUp => Some(1 + count),
            Attack::InTurn(ids) => Some(1 + count % ids),
            Attack::FillEach => Some(1 + count / 64),
            Attack::Genuine => (count % 2 == 0).then_some(1 + count),
        }
    }
}

/// Against the key ring alone, with a key server and clocks of the test's own.
mod ring {
    use super::*;

    /// How often each attack is tried.
    const RUNS: u64 = 100;
    /// How long the attack has been going on when the genuine key is first asked for.
    const BEFORE: u64 = 500;
    const SERVED_WITHIN: u64 = 3000;
    /// How long the key server takes.
    const ANSWERED_AFTER: u64 = 50;
    /// Five requests a second ask for the genuine key.
    const APART: u64 = 200;
    /// The number of the genuine key.
    const GENUINE: u32 = 0;
    const ATTACKER: ClientAddress = ClientAddress::V4(Ipv4Addr::new(203, 0, 113, 9));

    /// A worker's key ring, and the key server.
    struct World {
        ring: KeyRing,
        config: Config,
        key: PublicKey,
        /// When each fetch is answered, and whether it is one of the genuine key.
        answers: VecDeque<(u64, KeyName)>,
        fetches: usize,
        is_served: bool,
        requests: u32,
        millis: u64,
    }

    impl World {
        fn new(seed: u64) -> World {
            let config = Config::from_value(&gateway_config()).unwrap_or_else(|errors| panic!("{errors:?}"));
            let ring = KeyRing::new(config.key_ttl, config.key_sources.iter().map(|source| source.timeout), seed);
            let key = P256Key::from_pem(Key::numbered(1).pem().as_bytes()).expect("a key");
            let (key, answers) = (PublicKey::P256(key), VecDeque::new());
            World { ring, config, key, answers, fetches: 0, is_served: false, requests: 0, millis: 0 }
        }

        fn name(&self, number: u32) -> KeyName {
            let id = format!("{number:08x}-0000-4000-8000-000000000000");
            let id = KeyId::uuid(id.as_bytes()).expect("a UUID");
            KeyName { source: self.config.load_balancers[0].key_source, id }
        }

        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_000_000 + self.millis)
        }

        /// A request arrives. It waits, unless the key is known or refused.
        fn request(&mut self, number: u32, client: ClientAddress, hangs_up: bool) {
            let (name, now) = (self.name(number), self.now());
            self.requests += 1;
            if let Found::Unknown = self.ring.find(name, now) {
                let _ = self.ring.wait(name, self.requests, || client, now);
            }
            if hangs_up {
                self.ring.leave(self.requests);
            }
        }

        /// Has what is due happen; whether the genuine key has come.
        fn pass_a_millisecond(&mut self) -> bool {
            let genuine = self.name(GENUINE);
            while let Some((_, name)) = self.answers.pop_front_if(|(at, _)| *at <= self.millis) {
                let answer = if name == genuine { Answer::Key(self.key.clone()) } else { Answer::NotFound };
                self.is_served |= name == genuine;
                let now = self.now();
                self.ring.answered(name, answer, now);
            }
            let now = self.now();
            if self.ring.next_tick().is_some_and(|due| due <= now) {
                for name in self.ring.tick(now).fetch {
                    self.answers.push_back((self.millis + ANSWERED_AFTER, name));
                    self.fetches += 1;
                }
            }
            self.millis += 1;
            self.is_served
        }
    }

    /// How many milliseconds it took until the genuine key came, and how many fetches were made by then.
    fn run(attack: Attack, in_turn: bool, seed: u64) -> (Option<u64>, usize) {
        let (mut world, mut rng) = (World::new(seed), Rng::with_seed(seed));
        let (mut attacks, mut users) = (0, 0);
        let begin = BEFORE + rng.u64(..200);
        while world.millis < begin + SERVED_WITHIN {
            for _ in 0..attack.requests(world.millis) {
                let number = attack.id(attacks).unwrap_or(GENUINE);
                attacks += 1;
                if number != GENUINE || world.millis >= begin {
                    world.request(number, ATTACKER, matches!(attack, Attack::HangUp));
                }
            }
            if world.millis >= begin && (world.millis - begin).is_multiple_of(APART) {
                let user = if in_turn { users % 3 } else { rng.u32(..3) };
                users += 1;
                world.request(GENUINE, ClientAddress::V4(Ipv4Addr::from_bits(user)), false);
            }
            if world.pass_a_millisecond() {
                break;
            }
        }
        let most = 20 + world.millis as usize / 100;
        assert!(world.fetches <= most, "{attack:?}, {seed}: {} fetches in {} ms", world.fetches, world.millis);
        (world.is_served.then_some(world.millis - begin), world.fetches)
    }

    fn serves_99_of_100(in_turn: bool) {
        for attack in ATTACKS {
            let runs: Vec<_> = (0..RUNS).map(|seed| run(attack, in_turn, seed)).collect();
            let mut took: Vec<_> = runs.iter().filter_map(|(took, _)| *took).collect();
            took.sort_unstable();
            let (served, fetches) = (took.len() as u64, runs.iter().map(|(_, fetches)| *fetches).max());
            let (median, longest) = (took.get(took.len() / 2), took.last());
            println!(
                "{attack:?}: {served} of {RUNS}, median {median:?} ms, longest {longest:?} ms, {fetches:?} fetches"
            );
            assert!(served * 100 >= RUNS * 99, "{attack:?}: {served} of {RUNS} within {SERVED_WITHIN} ms");
        }
    }

    #[test]
    fn serves_users_whose_addresses_take_turns() {
        serves_99_of_100(true);
    }

    #[test]
    fn serves_users_whose_addresses_come_by_chance() {
        serves_99_of_100(false);
    }
}

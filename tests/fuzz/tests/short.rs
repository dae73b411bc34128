//! A short run of each target: its seeds, and the same mutations of them each time.

use alb_oidc_filter::Config;
use alb_oidc_fuzz::judge::identity::is_legible;
use alb_oidc_fuzz::targets::{ALL, Target};
use std::time::Instant;

/// The mutated inputs of each target; expensive targets get fewer.
fn rounds(name: &str) -> usize {
    match name {
        "keys" => 6_000,
        "gate" | "paths" => 30_000,
        _ => 60_000,
    }
}

fn mutated(chance: &mut fastrand::Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = chance.choice(seeds).expect("a seed").clone();
    for _ in 0..chance.usize(1..6) {
        if input.is_empty() {
            input.push(chance.u8(..));
        }
        let at = chance.usize(..input.len());
        match chance.u8(..8) {
            0 => input[at] = chance.u8(..),
            1 => input[at] ^= 1 << chance.u8(..8),
            2 => drop(input.remove(at)),
            3 => input.insert(at, chance.u8(..)),
            4 => input.insert(at, *chance.choice(b"{}[]\",:.%/\\;=-_ \n0e").expect("one")),
            5 => input.truncate(at),
            6 => {
                let end = chance.usize(at..=input.len().min(at + 32));
                let part = input[at..end].to_vec();
                let to = chance.usize(..=input.len());
                input.splice(to..to, part);
            }
            _ => {
                let other = chance.choice(seeds).expect("a seed");
                let from = chance.usize(..=other.len());
                let end = chance.usize(from..=other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    input
}

fn run(name: &str) {
    let target: &Target = ALL
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let (start, seeds) = (Instant::now(), (target.seeds)());
    assert!(!seeds.is_empty(), "no seeds");
    let mut chance = fastrand::Rng::with_seed(1);
    seeds.iter().for_each(|seed| (target.run)(seed));
    for _ in 0..rounds(name) {
        (target.run)(&mutated(&mut chance, &seeds));
    }
    println!(
        "{name}: {} seeds, {} mutations, {:.1} s",
        seeds.len(),
        rounds(name),
        start.elapsed().as_secs_f32()
    );
}

#[test]
fn claims_agree_with_a_second_implementation() {
    run("claims");
}

#[test]
fn config_respects_documented_bounds() {
    run("config");
}

#[test]
fn cookies_agree_with_another_library() {
    run("cookies");
}

#[test]
fn gate_agrees_with_a_second_implementation() {
    run("gate");
}

#[test]
fn keys_and_signatures_agree_with_another_library() {
    run("keys");
}

#[test]
fn paths_satisfy_the_rules_of_every_form() {
    run("paths");
}

#[test]
fn tokens_agree_with_other_libraries() {
    run("token");
}

#[test]
fn user_ids_have_no_invisible_characters() {
    let config = br#"{"loadBalancers": [{"arn": "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/a/50dc6c495c0c9188", "issuer": null, "clientId": null}]}"#;
    let rules = Config::parse(config)
        .expect("a config")
        .users
        .identity
        .user_id;
    for id in (0..=0x10_ffff)
        .filter_map(char::from_u32)
        .map(|character| format!("a{character}n"))
    {
        assert_eq!(rules.made_of(&id).is_ok(), is_legible(&id), "{id:?}");
    }
}

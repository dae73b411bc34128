//! Compares the catalogue of attacks (`tests/attacks.toml`) with the rows and tests that it names,
//! and the table of classes in docs/security.md with the catalogue. `tests/scenarios.rs` runs the
//! rows.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use support::table::{Row, Step, Table};

/// Outcomes of an attack other than a reason.
const OUTCOMES: [&str; 6] = [
    "own-identity",
    "no-identity",
    "signed-out",
    "envoy-refuses",
    "interlock-denies",
    "bounded",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    class: Vec<Class>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    name: String,
    /// What the attacker does.
    what: String,
    /// The source of the attack.
    from: Vec<Reference>,
    attack: Vec<Attack>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    name: String,
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    what: String,
    outcomes: BTreeSet<String>,
    #[serde(default)]
    rows: Vec<String>,
    /// `FILE::FUNCTION`
    #[serde(default)]
    tests: Vec<String>,
}

fn catalogue() -> Catalogue {
    toml::from_str(&support::read("tests/attacks.toml"))
        .unwrap_or_else(|error| panic!("tests/attacks.toml: {error}"))
}

fn rows() -> BTreeMap<String, Row> {
    let rows = Table::read(&support::repository("tests/scenarios")).rows;
    rows.into_iter()
        .map(|row| (row.name.clone(), row))
        .collect()
}

/// Each reason in the table of `docs/monitoring.md`, and whether a key is fetched before it.
fn reasons() -> BTreeMap<String, String> {
    let page = support::read("docs/monitoring.md");
    let rest = page.split_once("<!-- reasons: ").expect("the reasons").1;
    let lines = rest
        .lines()
        .skip(3)
        .take_while(|line| line.starts_with('|'));
    let cells = lines.map(|line| {
        line.trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()
    });
    cells
        .map(|cells| (cells[0].trim_matches('`').to_owned(), cells[3].to_owned()))
        .collect()
}

/// The outcomes that the row expects.
fn outcomes(step: &Step) -> Vec<&str> {
    match step {
        _ if step.hang_up_ms.is_some() => vec![],
        _ if step.refused.is_some() => vec!["envoy-refuses"],
        _ if step.signed_out.is_some() => vec!["signed-out"],
        _ if step.is_admitted() => vec!["own-identity"],
        _ if step.passes() => vec!["no-identity"],
        _ => step.reasons(),
    }
}

#[test]
fn every_attack_has_rows_or_tests_with_its_outcomes() {
    let (rows, reasons, mut wrong) = (rows(), reasons(), Vec::new());
    for class in catalogue().class {
        assert!(
            !class.attack.is_empty() && !class.what.is_empty(),
            "{}: no attack",
            class.name
        );
        let is_source = |of: &Reference| !of.name.is_empty() && of.url.starts_with("https://");
        assert!(
            !class.from.is_empty() && class.from.iter().all(is_source),
            "{}: no source",
            class.name
        );
        for attack in class.attack {
            let called = format!("{}: {}", class.name, attack.what);
            assert!(
                !attack.rows.is_empty() || !attack.tests.is_empty(),
                "{called}: nothing tries it"
            );
            let known = |outcome: &&String| {
                !OUTCOMES.contains(&outcome.as_str()) && !reasons.contains_key(*outcome)
            };
            let unknown: Vec<_> = attack.outcomes.iter().filter(known).collect();
            assert!(
                unknown.is_empty(),
                "{called}: no such outcomes: {unknown:?}"
            );
            let found = attack.rows.iter().map(|name| {
                rows.get(name)
                    .unwrap_or_else(|| panic!("no row is named {name:?}"))
            });
            let steps: Vec<_> = found.flat_map(|row| &row.requests).collect();
            let expected: BTreeSet<_> = steps
                .iter()
                .flat_map(|step| outcomes(step))
                .map(str::to_owned)
                .collect();
            if !attack.rows.is_empty() && expected != attack.outcomes {
                wrong.push(format!(
                    "{called}: outcomes {:?}, its rows expect {expected:?}",
                    attack.outcomes
                ));
            }
            for step in steps.into_iter().filter(|step| step.is_admitted()) {
                let named = |header: &&String| {
                    header
                        .split_once(": ")
                        .is_some_and(|(_, value)| value == step.user)
                };
                assert_eq!(
                    step.headers.iter().find(named),
                    None,
                    "{called}: admitted as whom the client named"
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_in_the_catalogue_exist() {
    for class in catalogue().class {
        for test in class.attack.iter().flat_map(|attack| &attack.tests) {
            let (path, function) = test
                .split_once("::")
                .unwrap_or_else(|| panic!("not FILE::FUNCTION: {test}"));
            let text = support::read(path);
            let (before, _) = text
                .split_once(&format!("fn {function}("))
                .unwrap_or_else(|| panic!("no test {test}"));
            let attribute = before
                .lines()
                .rev()
                .map(str::trim_start)
                .find(|line| line.starts_with("#["));
            assert!(
                attribute.is_some_and(|line| line.contains("test")),
                "{test} is no test: {attribute:?}"
            );
        }
    }
}

#[test]
fn security_model_has_the_classes_of_the_catalogue() {
    let mut expected = "| Attack | Technique |\n|---|---|\n".to_owned();
    for class in catalogue().class {
        writeln!(expected, "| {} | {} |", class.name, class.what).expect("a string");
    }
    let text = support::read("docs/security.md");
    let rest = text.split_once("<!-- attacks: ").expect("no attacks").1;
    let found: String = rest
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(found == expected, "the table should be\n{expected}");
}

#[test]
fn security_model_has_a_guarantee_for_each_class() {
    let text = support::read("docs/security.md");
    let rest = text
        .split_once("| Guarantee | Mechanism | Attacks that test it |\n")
        .expect("no guarantees")
        .1;
    let lines = rest
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let last = lines.map(|line| {
        line.trim_matches('|')
            .rsplit('|')
            .next()
            .expect("a cell")
            .trim()
    });
    let named: BTreeSet<_> = last.flat_map(|cell| cell.split(", ")).collect();
    let catalogue = catalogue();
    assert_eq!(
        named,
        catalogue
            .class
            .iter()
            .map(|class| class.name.as_str())
            .collect()
    );
}

/// How long such a denial takes depends on the request alone: it waits for no key and computes
/// nothing with one.
#[test]
fn denials_before_the_key_check_no_signature() {
    let needs_none: BTreeSet<_> = reasons()
        .into_iter()
        .filter(|(_, before)| before == "no")
        .map(|(name, _)| name)
        .collect();
    assert!(needs_none.len() >= 8, "{needs_none:?}");
    let is_refused_so = |step: &Step| {
        let reasons = step.reasons();
        !reasons.is_empty() && reasons.iter().all(|reason| needs_none.contains(*reason))
    };
    let rows: Vec<_> = rows()
        .into_values()
        .filter(|row| row.requests.iter().all(is_refused_so))
        .collect();
    assert!(rows.len() > 100, "{} rows", rows.len());
    for row in rows {
        assert!(
            row.fetches().holds(0) && row.jwks_fetches().holds(0),
            "{:?} fetches a key",
            row.name
        );
        let checked = row.expected_counters("host")["verified.host"];
        assert!(
            checked.holds(0) && !checked.holds(1),
            "{:?} checks {checked} signatures",
            row.name
        );
    }
}

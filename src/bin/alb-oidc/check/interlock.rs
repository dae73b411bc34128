//! The interlock: an EnvoyFilter that denies each request that the filter did not let pass.

use serde_json::{Value, json};

use super::target::Target;
use super::walk::any;
use crate::finding::{Code, Finding};
use crate::input::Object;

/// The filter state that the filter writes.
const FILTER_STATE: &str = "wasm.alb_oidc";

/// Whether this EnvoyFilter is an interlock, complete or not.
pub(crate) fn is_interlock(object: &Object) -> bool {
    object.kind == "EnvoyFilter" && any(&object.value, &|_, value| value == FILTER_STATE)
}

/// Findings about `interlocks`, and about extensions without one.
pub(super) fn findings(
    extensions: &[&Object],
    interlocks: &[&Object],
    is_partial: bool,
) -> Vec<Finding> {
    let mut findings: Vec<_> = interlocks
        .iter()
        .filter_map(|interlock| open(interlock))
        .collect();
    let of_interlocks: Vec<_> = interlocks
        .iter()
        .flat_map(|interlock| {
            Target::of(interlock)
                .into_iter()
                .map(move |target| (*interlock, target))
        })
        .collect();
    let of_extensions: Vec<_> = extensions
        .iter()
        .flat_map(|extension| Target::of(extension))
        .collect();
    let without_extension: Vec<_> = of_interlocks
        .iter()
        .filter(|(_, target)| !of_extensions.iter().any(|other| target.is_same(other)))
        .collect();
    for extension in extensions {
        for target in Target::of(extension) {
            if of_interlocks
                .iter()
                .any(|(_, other)| other.is_same(&target))
            {
                continue;
            }
            if let Some((interlock, other)) = without_extension.first() {
                let message = format!(
                    "found {}, expected {} as in {}",
                    other.words(),
                    target.words(),
                    extension.id()
                );
                findings.push(differs(interlock, &message));
            } else if !is_partial {
                findings.push(Finding::in_object(
                    extension,
                    Code::InterlockMissing,
                    "spec",
                    &format!("found no interlock for {}", target.words()),
                ));
            }
        }
    }
    if extensions.is_empty() && !is_partial {
        findings.extend(interlocks.iter().map(|interlock| {
            let message = "found no WasmPlugin or TrafficExtension with the filter";
            Finding::in_object(interlock, Code::ExtensionMissing, "spec", message)
        }));
    }
    findings
}

/// The finding for a resource that selects another gateway than the extension.
pub(super) fn differs(object: &Object, message: &str) -> Finding {
    let fields = ["workloadSelector", "selector", "targetRefs"];
    let field = fields
        .iter()
        .find(|field| object.at("/spec").get(field).is_some());
    let field = format!("spec.{}", field.unwrap_or(&"selector"));
    Finding::in_object(object, Code::TargetDiffers, &field, message)
}

/// The finding for an interlock that is not the last filter, or does not deny.
fn open(interlock: &Object) -> Option<Finding> {
    let patches = interlock.elements("/spec/configPatches");
    let is_of_interlock = |patch: &&Value| any(patch, &|_, value| value == FILTER_STATE);
    let position = patches.iter().position(|patch| is_of_interlock(&patch))?;
    let patch = patches.get(position)?;
    let (field, message) = mistake(patch)?;
    let field = format!("spec.configPatches[{position}]{field}");
    Some(Finding::in_object(
        interlock,
        Code::InterlockOpen,
        &field,
        &message,
    ))
}

/// The mistake in the patch, with its field.
fn mistake(patch: &Value) -> Option<(&'static str, String)> {
    let at = |pointer: &str| patch.pointer(pointer).unwrap_or(&Value::Null);
    for (pointer, field, expected) in [
        ("/applyTo", ".applyTo", "HTTP_FILTER"),
        ("/match/context", ".match.context", "GATEWAY"),
        (
            "/match/listener/filterChain/filter/subFilter/name",
            ".match.listener.filterChain.filter.subFilter.name",
            "envoy.filters.http.router",
        ),
        ("/patch/operation", ".patch.operation", "INSERT_BEFORE"),
    ] {
        if at(pointer) != expected {
            return Some((field, format!("found {}, expected {expected}", at(pointer))));
        }
    }
    // A narrower match leaves other ports, routes or proxies without the interlock.
    let expected = json!({
        "context": "GATEWAY",
        "listener": {"filterChain": {"filter": {
            "name": "envoy.filters.network.http_connection_manager",
            "subFilter": {"name": "envoy.filters.http.router"},
        }}},
    });
    if at("/match") != &expected {
        let message = "found a narrower match, expected every listener of the gateway";
        return Some((".match", message.to_owned()));
    }
    // Envoy skips a disabled filter, and ignores `rules` with a `matcher`.
    if ![&Value::Null, &json!(false)].contains(&at("/patch/value/disabled")) {
        let message = "found a disabled filter, expected false".to_owned();
        return Some((".patch.value.disabled", message));
    }
    if at("/patch/value/typed_config/matcher") != &Value::Null {
        let message = "found a matcher, which replaces the rules, expected none".to_owned();
        return Some((".patch.value.typed_config.matcher", message));
    }
    let rules = at("/patch/value/typed_config/rules");
    if ![Value::Null, json!("ALLOW"), json!(0)]
        .contains(rules.get("action").unwrap_or(&Value::Null))
    {
        let message = "found another action, expected ALLOW".to_owned();
        return Some((".patch.value.typed_config.rules.action", message));
    }
    let policies = rules.get("policies").and_then(Value::as_object);
    let principals = policies
        .into_iter()
        .flat_map(|policies| policies.values())
        .map(|policy| policy.get("principals").and_then(Value::as_array));
    let mut principals: Vec<_> = principals.collect();
    let is_sound = !principals.is_empty()
        && principals.iter_mut().all(|principals| {
            principals.is_some_and(|list| !list.is_empty() && list.iter().all(is_of_filter))
        });
    (!is_sound).then(|| {
        let message = format!(
            "found other principals, expected only the filter state {FILTER_STATE} with admitted, skipped or reported"
        );
        (".patch.value.typed_config.rules.policies", message)
    })
}

/// Whether only requests that the filter let pass have this principal.
fn is_of_filter(principal: &Value) -> bool {
    ["admitted", "skipped", "reported"].iter().any(|state| {
        *principal
            == json!({"filter_state": {"key": FILTER_STATE, "string_match": {"exact": state}}})
    })
}

//! Other resources at the gateway that weaken the filter or the interlock: policies and
//! EnvoyFilters.

use serde_json::Value;

use super::interlock::differs;
use super::target::Target;
use super::walk::first;
use crate::finding::{Code, Finding};
use crate::input::Object;

/// The label of the resources that the chart renders.
const CHART: (&str, &str) = ("app.kubernetes.io/name", "alb-oidc-filter");

/// The findings about `objects` at the gateways of `extensions`.
pub(super) fn findings(extensions: &[&Object], objects: &[Object]) -> Vec<Finding> {
    let targets: Vec<_> = extensions
        .iter()
        .flat_map(|extension| Target::of(extension))
        .collect();
    let mut findings = Vec::new();
    for object in objects {
        match object.kind.as_str() {
            "AuthorizationPolicy" | "RequestAuthentication"
                if is_of_istio(object) && is_of_chart(object) =>
            {
                findings.extend(of_chart(object, &targets));
            }
            _ => {}
        }
        let at_gateway: Vec<_> = targets
            .iter()
            .filter(|target| Target::of(object).iter().any(|other| other.covers(target)))
            .collect();
        if at_gateway.is_empty() {
            continue;
        }
        match object.kind.as_str() {
            "AuthorizationPolicy" if is_of_istio(object) => {
                let may_carry_tcp = at_gateway
                    .iter()
                    .any(|target| may_carry_tcp(objects, target));
                findings.extend(policy(object, may_carry_tcp));
            }
            "EnvoyFilter" => findings.extend(upgrade_type(object)),
            _ => {}
        }
    }
    findings
}

pub(super) fn is_of_chart(object: &Object) -> bool {
    let (label, value) = CHART;
    let labels = object.at("/metadata/labels");
    labels.get(label).is_some_and(|found| found == value)
}

/// Other projects have policies of the same kind.
fn is_of_istio(policy: &Object) -> bool {
    let version = policy.at("/apiVersion").as_str().unwrap_or_default();
    version.starts_with("security.istio.io/")
}

/// A policy of the chart at another gateway than the extension.
fn of_chart(policy: &Object, targets: &[Target]) -> Option<Finding> {
    let expected = targets.first()?;
    let own = Target::of(policy);
    let other = own.iter().find(|target| !targets.contains(target))?;
    let message = format!("found {}, expected {}", other.words(), expected.words());
    Some(differs(policy, &message))
}

fn policy(policy: &Object, may_carry_tcp: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |code, field: &str, message: &str| {
        findings.push(Finding::in_object(policy, code, field, message));
    };
    match policy.at("/spec/action").as_str() {
        Some("CUSTOM") => found(
            Code::PolicyCustom,
            "spec.action",
            "found CUSTOM, expected no external authorizer before the filter",
        ),
        Some("DENY") => {
            let denies_tcp = |rule: &Value| has_http_attributes(rule) && !names_ports(rule);
            let position = policy.elements("/spec/rules").iter().position(denies_tcp);
            if let Some(position) = position.filter(|_| may_carry_tcp) {
                found(
                    Code::PolicyDeniesTcp,
                    &format!("spec.rules[{position}]"),
                    "found HTTP attributes without ports, expected notPorts",
                );
            }
            for (position, rule) in policy.elements("/spec/rules").iter().enumerate() {
                let field = format!("spec.rules[{position}]");
                if demands_jwt(rule) {
                    found(
                        Code::PolicyDemandsJwt,
                        &field,
                        "found notRequestPrincipals [\"*\"] for every host and path, expected hosts",
                    );
                }
            }
        }
        _ => {}
    }
    findings
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    let list = value.get(name).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn operations(rule: &Value) -> impl Iterator<Item = &Value> {
    list(rule, "to").iter().filter_map(|to| to.get("operation"))
}

/// The hosts on which a policy denies requests without a JWT.
pub(super) fn guarded_hosts(objects: &[Object]) -> Vec<&str> {
    let policies = objects.iter().filter(|object| {
        object.kind == "AuthorizationPolicy"
            && is_of_istio(object)
            && object.at("/spec/action") == "DENY"
    });
    let rules = policies.flat_map(|policy| policy.elements("/spec/rules"));
    rules
        .filter(|rule| is_without_jwt(rule) && list(rule, "when").is_empty())
        .flat_map(operations)
        .filter(|operation| operation.get("paths").is_none() && operation.get("methods").is_none())
        .flat_map(|operation| list(operation, "hosts"))
        .filter_map(Value::as_str)
        .collect()
}

/// Whether the rule is for requests without a JWT.
fn is_without_jwt(rule: &Value) -> bool {
    let mut sources = list(rule, "from")
        .iter()
        .filter_map(|from| from.get("source"));
    sources.any(|source| {
        list(source, "notRequestPrincipals")
            .iter()
            .any(|name| name == "*")
    })
}

/// Whether the rule denies requests without a JWT on every host and path.
fn demands_jwt(rule: &Value) -> bool {
    // An operation with exceptions alone is for all other requests.
    let is_exception = |name: &String| name.starts_with("not");
    let is_any = |operation: &Value| {
        let fields = operation.as_object();
        fields.is_some_and(|fields| fields.keys().all(is_exception))
    };
    is_without_jwt(rule) && list(rule, "when").is_empty() && operations(rule).all(is_any)
}

/// Whether the rule has attributes that only HTTP requests have.
fn has_http_attributes(rule: &Value) -> bool {
    let has = |value: &Value, names: &[&str]| names.iter().any(|name| value.get(name).is_some());
    let mut sources = list(rule, "from")
        .iter()
        .filter_map(|from| from.get("source"));
    let of_source = ["requestPrincipals", "notRequestPrincipals"];
    let of_operation = [
        "hosts",
        "notHosts",
        "methods",
        "notMethods",
        "paths",
        "notPaths",
    ];
    let keys = list(rule, "when")
        .iter()
        .filter_map(|when| when.get("key")?.as_str());
    sources.any(|source| has(source, &of_source))
        || operations(rule).any(|operation| has(operation, &of_operation))
        || keys.into_iter().any(|key| key.starts_with("request."))
}

/// Whether the rule applies to some ports only.
fn names_ports(rule: &Value) -> bool {
    let of_operation =
        |operation: &Value| operation.get("ports").is_some() || operation.get("notPorts").is_some();
    let is_port = |when: &Value| when.get("key").is_some_and(|key| key == "destination.port");
    let mut operations = operations(rule).peekable();
    let by_operation = operations.peek().is_some() && operations.all(of_operation);
    by_operation || list(rule, "when").iter().any(is_port)
}

/// Whether a gateway among `objects` carries TCP or passthrough TLS at `target`. Also true if
/// `objects` has no gateway there.
fn may_carry_tcp(objects: &[Object], target: &Target) -> bool {
    let mut gateways = objects
        .iter()
        .filter(|object| object.kind == "Gateway" && Target::of_gateway(object).selects(target))
        .peekable();
    gateways.peek().is_none() || gateways.any(carries_tcp)
}

fn carries_tcp(gateway: &Object) -> bool {
    let text = |value: &Value, pointer: &str| {
        let text = value.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_ascii_uppercase()
    };
    let is_http =
        |protocol: &str| ["HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB"].contains(&protocol);
    let servers = gateway.elements("/spec/servers").iter();
    let mut servers =
        servers.map(|server| (text(server, "/port/protocol"), text(server, "/tls/mode")));
    let listeners = gateway.elements("/spec/listeners").iter();
    let mut listeners = listeners.map(|listener| text(listener, "/protocol"));
    servers.any(|(protocol, mode)| !is_http(&protocol) || mode.contains("PASSTHROUGH"))
        || listeners.any(|protocol| !is_http(&protocol))
}

/// An upgrade type other than `websocket` that an EnvoyFilter adds.
fn upgrade_type(envoy_filter: &Object) -> Option<Finding> {
    let is_type = |path: &str, value: &Value| {
        let is_named = path.ends_with(".upgrade_type") || path.ends_with(".upgradeType");
        let name = value.as_str().unwrap_or_default();
        is_named && !name.is_empty() && !name.eq_ignore_ascii_case("websocket")
    };
    let (path, name) = first(envoy_filter.at("/spec"), "spec", &is_type)?;
    let message = format!("found {name}, expected websocket");
    Some(Finding::in_object(
        envoy_filter,
        Code::UpgradeType,
        &path,
        &message,
    ))
}

//! The ServiceEntry and the DestinationRule of each key server that the filter asks.

use alb_oidc_filter::{Config, KeyFormat, KeySource};
use serde_json::Value;

use crate::finding::{Code, Finding};
use crate::input::{Object, PluginConfig};

/// The part of the name of a Service's cluster that no other host has.
const SERVICE: &str = ".svc.";

/// The findings about the key servers of one extension.
pub(super) fn findings(
    plugin: &PluginConfig,
    config: &Config,
    objects: &[Object],
    is_partial: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let object = plugin.object.as_ref();
    let namespace = object.map_or("", |object| object.namespace.as_str());
    for source in &config.key_sources {
        let is_https = plugin.key_url(source, "").starts_with("https:");
        let mut found = |code, message: String| {
            let field = field(plugin, source);
            let message = format!("{field}: {message}");
            findings.push(Finding::in_config(plugin, code, field, message));
        };
        // A cluster with another name is not Istio's.
        let Some((port, subset, host)) = of_istio(&source.cluster) else {
            continue;
        };
        let (host, port) = if subset.is_empty() {
            (host, port)
        } else {
            let tls = subset_tls(objects, namespace, host, subset);
            match tls {
                Some(tls) if is_verified(tls) => {}
                None if is_partial => {}
                _ => found(
                    Code::KeyServerTls,
                    format!("found no TLS for the subset {subset} of {host}"),
                ),
            }
            split_authority(&source.authority)
        };
        if host.contains(SERVICE) {
            continue;
        }
        let entries = objects.iter().filter(|object| {
            let mut hosts = object.elements("/spec/hosts").iter();
            object.kind == "ServiceEntry"
                && hosts.any(|other| other == host)
                && is_visible(object, namespace)
        });
        let has_port = |entry: &Object| {
            let mut ports = entry.elements("/spec/ports").iter();
            ports.any(|other| other.get("number").is_some_and(|number| *number == port))
        };
        let entries: Vec<_> = entries.collect();
        let is_missing = if entries.is_empty() {
            !is_partial
        } else {
            !entries.iter().any(|entry| has_port(entry))
        };
        if is_missing {
            found(
                Code::KeyServerMissing,
                format!("found no ServiceEntry for {host} and port {port}"),
            );
        }
        if !is_https {
            continue;
        }
        let rule = objects.iter().find(|object| {
            object.kind == "DestinationRule"
                && object.at("/spec/host") == host
                && is_visible(object, namespace)
        });
        match rule {
            None if is_partial => {}
            None => found(
                Code::KeyServerTls,
                format!("found no DestinationRule for {host}"),
            ),
            Some(rule) => findings.extend(of_rule(rule, host, port)),
        }
    }
    findings
}

/// The finding in the DestinationRule of a key server.
fn of_rule(rule: &Object, host: &str, port: u64) -> Option<Finding> {
    let is_of_port = |settings: &&Value| {
        settings
            .pointer("/port/number")
            .is_some_and(|number| *number == port)
    };
    let settings = rule.elements("/spec/trafficPolicy/portLevelSettings");
    let (field, tls) = match settings.iter().position(|settings| is_of_port(&settings)) {
        Some(position) => (
            format!("spec.trafficPolicy.portLevelSettings[{position}].tls"),
            rule.at(&format!(
                "/spec/trafficPolicy/portLevelSettings/{position}/tls"
            )),
        ),
        None => (
            "spec.trafficPolicy.tls".to_owned(),
            rule.at("/spec/trafficPolicy/tls"),
        ),
    };
    let find = |code, message: &str| Some(Finding::in_object(rule, code, &field, message));
    if !is_verified(tls) {
        let mode = tls.get("mode").and_then(Value::as_str).unwrap_or("nothing");
        let found = if tls.get("insecureSkipVerify") == Some(&Value::Bool(true)) {
            "insecureSkipVerify: true"
        } else {
            mode
        };
        return find(
            Code::KeyServerTls,
            &format!("found {found}, expected mode SIMPLE and a verified certificate"),
        );
    }
    let names = tls.get("subjectAltNames").and_then(Value::as_array);
    let is_named = names.is_some_and(|names| names.iter().any(|name| name == host));
    let has_ca = ["caCertificates", "credentialName"]
        .iter()
        .any(|field| tls.get(field).is_some());
    if !is_named || !has_ca {
        return find(
            Code::KeyServerUnverified,
            &format!("found no subjectAltNames with {host} and caCertificates, expected both"),
        );
    }
    None
}

/// Whether these settings mean TLS with a verified certificate.
fn is_verified(tls: &Value) -> bool {
    let mode = tls.get("mode").and_then(Value::as_str);
    mode.is_some_and(|mode| ["SIMPLE", "MUTUAL", "ISTIO_MUTUAL"].contains(&mode))
        && tls.get("insecureSkipVerify") != Some(&Value::Bool(true))
}

/// The TLS settings of a subset; `None` without a DestinationRule for the host.
fn subset_tls<'o>(
    objects: &'o [Object],
    namespace: &str,
    host: &str,
    subset: &str,
) -> Option<&'o Value> {
    let mut rules = objects
        .iter()
        .filter(|object| {
            object.kind == "DestinationRule"
                && object.at("/spec/host") == host
                && is_visible(object, namespace)
        })
        .peekable();
    rules.peek()?;
    let of_subset = rules.find_map(|rule| {
        let mut subsets = rule.elements("/spec/subsets").iter();
        let named = subsets.find(|other| other.get("name").is_some_and(|name| name == subset));
        named?.pointer("/trafficPolicy/tls")
    });
    Some(of_subset.unwrap_or(&Value::Null))
}

/// Whether proxies in this namespace see the resource: `exportTo`.
fn is_visible(object: &Object, namespace: &str) -> bool {
    let mut export_to = object.elements("/spec/exportTo").iter().peekable();
    export_to.peek().is_none()
        || export_to.any(|to| {
            let is_own = to == "." && object.namespace == namespace;
            is_own || to == "*" || to == namespace
        })
}

/// Port, subset and host in the name of a cluster of Istio.
fn of_istio(cluster: &str) -> Option<(u64, &str, &str)> {
    let rest = cluster.strip_prefix("outbound|")?;
    let (port, rest) = rest.split_once('|')?;
    let (subset, host) = rest.split_once('|')?;
    Some((port.parse().ok()?, subset, host))
}

fn split_authority(authority: &str) -> (&str, u64) {
    authority
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .unwrap_or((authority, 443))
}

/// The field of the config that names the key server.
fn field(plugin: &PluginConfig, source: &KeySource) -> &'static str {
    let field = match source.format {
        KeyFormat::Pem => "publicKeys",
        KeyFormat::KeySet => "accessToken",
    };
    if plugin.members.contains_key(field) {
        field
    } else {
        "loadBalancers"
    }
}

//! The WasmPlugin or TrafficExtension that loads the filter.

use serde_json::Value;

use super::target::Target;
use crate::finding::{Code, Finding};
use crate::input::Object;

/// The findings in one extension.
pub(super) fn findings(extension: &Object) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |code, field: &str, message: &str| {
        findings.push(Finding::in_object(extension, code, field, message));
    };
    // A TrafficExtension nests the settings of the module.
    let wasm = if extension.kind == "WasmPlugin" {
        "spec"
    } else {
        "spec.wasm"
    };
    let of_wasm = |field: &str| {
        let value = extension.at(&format!("/{}/{field}", wasm.replace('.', "/")));
        (format!("{wasm}.{field}"), value.as_str())
    };
    if let (field, Some("FAIL_OPEN")) = of_wasm("failStrategy") {
        found(
            Code::FailOpen,
            &field,
            "found FAIL_OPEN, expected FAIL_RELOAD or FAIL_CLOSE",
        );
    }
    let phase = extension.at("/spec/phase").as_str();
    if phase != Some("AUTHN") {
        let message = format!("found {}, expected AUTHN", phase.unwrap_or("nothing"));
        found(Code::PhaseWrong, "spec.phase", &message);
    }
    let entries = extension.elements("/spec/match");
    let is_server = |entry: &Value| entry.get("mode").and_then(Value::as_str) == Some("SERVER");
    if !entries.is_empty() && entries.iter().all(is_server) {
        found(
            Code::MatchServer,
            "spec.match",
            "found SERVER, expected CLIENT",
        );
    }
    let has_ports = |entry: &Value| entry.get("ports").is_some();
    if !entries.is_empty() && entries.iter().all(has_ports) {
        found(
            Code::MatchPorts,
            "spec.match",
            "found ports, expected an entry without ports",
        );
    }
    if Target::of(extension)
        .iter()
        .any(|target| target.labels.is_empty())
    {
        found(
            Code::TargetMissing,
            "spec.selector",
            "found nothing, expected the gateway's labels or targetRefs",
        );
    }
    let (field, url) = of_wasm("url");
    let is_pinned = match url {
        Some(url) if url.starts_with("https://") => of_wasm("sha256").1.is_some(),
        // A URL without a scheme is an OCI image.
        Some(url) => {
            url.contains("@sha256:") || url.starts_with("file://") || url.starts_with("http://")
        }
        None => true,
    };
    if !is_pinned {
        let message = format!(
            "found {}, expected an image with its digest",
            url.unwrap_or_default()
        );
        found(Code::ImageUnpinned, &field, &message);
    }
    findings
}

/// Extensions that run the filter on the gateway of an earlier one.
pub(super) fn duplicates(extensions: &[&Object]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, extension) in extensions.iter().enumerate() {
        let targets = Target::of(extension);
        let is_on_same_gateway = |earlier: &&&Object| {
            Target::of(earlier).iter().any(|other| {
                let both = |one: &Target| one.covers(other) || other.covers(one);
                targets.iter().any(both)
            })
        };
        let earlier = extensions.iter().take(position).find(is_on_same_gateway);
        if let Some(earlier) = earlier {
            let message = format!("found the gateway of {}, expected another", earlier.id());
            findings.push(Finding::in_object(
                extension,
                Code::TwoFilters,
                "spec",
                &message,
            ));
        }
    }
    findings
}

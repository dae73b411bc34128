//! Findings as a log file of SARIF 2.1.0 (OASIS, section 3.13), with one run.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Code, Finding};

/// The findings as SARIF 2.1.0, and notes as notifications of the run.
pub(crate) fn log(findings: &[Finding], notes: &[String]) -> Value {
    let rules: Vec<_> = Code::ALL.iter().copied().map(rule).collect();
    let results: Vec<_> = findings.iter().map(result).collect();
    let mut run = json!({
        "tool": {"driver": {
            "name": "alb-oidc",
            "version": env!("CARGO_PKG_VERSION"),
            "rules": rules,
        }},
        "results": results,
    });
    if let (false, Some(members)) = (notes.is_empty(), run.as_object_mut()) {
        let notification = |text: &String| json!({"level": "note", "message": {"text": text}});
        let notifications: Vec<_> = notes.iter().map(notification).collect();
        members.insert(
            "invocations".to_owned(),
            json!([{
                "executionSuccessful": true,
                "toolExecutionNotifications": notifications,
            }]),
        );
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    })
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.name(),
        "shortDescription": {"text": code.title()},
        "help": {"text": format!("{} See {}.", code.fix(), code.page())},
        "defaultConfiguration": {"level": code.severity().name()},
    })
}

fn result(finding: &Finding) -> Value {
    let region = json!({"startLine": finding.line.max(1)});
    let mut location = json!({
        "physicalLocation": {
            "artifactLocation": {"uri": uri(&finding.file)},
            "region": region,
        },
    });
    if let (Some(resource), Some(location)) = (&finding.resource, location.as_object_mut()) {
        location.insert(
            "logicalLocations".to_owned(),
            json!([{"fullyQualifiedName": resource}]),
        );
    }
    json!({
        "ruleId": finding.code.name(),
        "level": finding.code.severity().name(),
        "message": {"text": format!("{}\n{}", finding.message, finding.code.fix())},
        "locations": [location],
    })
}

/// The file's name as a URI reference (RFC 3986, section 4.1).
fn uri(file: &str) -> String {
    let mut uri = String::new();
    for byte in file.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            // Writing to a string cannot fail.
            byte => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri
}

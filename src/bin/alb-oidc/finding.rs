//! Findings of `check`, `audit` and `doctor`: data with a stable code, and their output as text,
//! JSON and SARIF. Judges nothing.

mod code;
pub(crate) mod report;
pub(crate) mod sarif;

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

pub(crate) use code::{Code, Severity};

use crate::input::{Object, PluginConfig};
use crate::output::{BAD, FAINT, LOUD, printable, styled};

/// A mistake or a risk, with its place.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    pub(crate) file: String,
    pub(crate) line: u64,
    /// Kind and name of the resource.
    pub(crate) resource: Option<String>,
    /// The field, such as `spec.phase`.
    pub(crate) field: String,
    /// Found and expected value.
    pub(crate) message: String,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text for a person
    #[default]
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

impl Finding {
    /// In the field `field` of a resource.
    pub(crate) fn in_object(object: &Object, code: Code, field: &str, message: &str) -> Self {
        Self {
            code,
            file: object.file.clone(),
            line: object.line(field),
            resource: Some(object.id()),
            field: field.to_owned(),
            message: format!("{}: {field}: {message}", object.id()),
        }
    }

    /// In the field `field` of a plugin config. `message` names the field.
    pub(crate) fn in_config(
        plugin: &PluginConfig,
        code: Code,
        field: &str,
        message: String,
    ) -> Self {
        Self {
            code,
            file: plugin.file.clone(),
            line: plugin.line(field),
            resource: plugin.object.as_ref().map(Object::id),
            field: field.to_owned(),
            message,
        }
    }

    /// As a JSON object.
    pub(crate) fn json(&self) -> Value {
        json!({
            "code": self.code.name(),
            "severity": self.code.severity().name(),
            "file": self.file,
            "line": self.line,
            "resource": self.resource,
            "field": self.field,
            "message": self.message,
            "fix": self.code.fix(),
            "page": self.code.page(),
        })
    }

    /// As two lines of text.
    pub(crate) fn text(&self) -> String {
        let severity = self.code.severity();
        let style = match severity {
            Severity::Error => BAD,
            Severity::Warning => LOUD,
        };
        let code = styled(FAINT, &format!("[{}]", self.code.name()));
        let fix = styled(FAINT, &format!("fix: {}", self.code.fix()));
        format!(
            "{}:{}: {} {} {code}\n    {fix}",
            printable(&self.file),
            self.line,
            styled(style, &format!("{}:", severity.name())),
            printable(&self.message),
        )
    }
}

/// Sorts by file, in the order of their first finding, and by line.
pub(crate) fn sort(findings: &mut [Finding]) {
    let mut files: Vec<String> = Vec::new();
    for finding in findings.iter() {
        if !files.contains(&finding.file) {
            files.push(finding.file.clone());
        }
    }
    findings.sort_by_key(|finding| {
        let file = files.iter().position(|file| *file == finding.file);
        (file, finding.line)
    });
}

/// The number of errors and of warnings in words; `None` without findings.
pub(crate) fn summary(findings: &[Finding]) -> Option<String> {
    let count = |severity: Severity| {
        let of = |finding: &&Finding| finding.code.severity() == severity;
        match findings.iter().filter(of).count() {
            0 => None,
            1 => Some(format!("1 {}", severity.name())),
            count => Some(format!("{count} {}s", severity.name())),
        }
    };
    let counts = [count(Severity::Error), count(Severity::Warning)];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

/// Failure for an error, and with `strict` for a warning.
pub(crate) fn exit_code(findings: &[Finding], strict: bool) -> ExitCode {
    let fails = |finding: &Finding| strict || finding.code.severity() == Severity::Error;
    if findings.iter().any(fails) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

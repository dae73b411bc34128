//! The output of `audit` and `doctor`: findings alone. Judges nothing.

use serde_json::json;

use super::{Finding, Format, sarif, summary};
use crate::output::{GOOD, styled};

/// The sorted findings in this form. The text ends with their number, or with `verdict` if there
/// are none.
pub(crate) fn render(findings: &[Finding], format: Format, verdict: &str) -> String {
    match format {
        Format::Text => {
            let mut lines: Vec<_> = findings.iter().map(Finding::text).collect();
            lines.push(summary(findings).unwrap_or_else(|| styled(GOOD, verdict)));
            lines.join("\n") + "\n"
        }
        Format::Json => {
            let findings: Vec<_> = findings.iter().map(Finding::json).collect();
            format!("{:#}\n", json!({"findings": findings}))
        }
        Format::Sarif => format!("{:#}\n", sarif::log(findings)),
    }
}

//! The output of `audit` and `doctor`: findings alone. Judges nothing.

use serde_json::json;

use super::{Finding, Format, sarif, summary};
use crate::output::{GOOD, printable, styled};

/// The sorted findings in this form, and notes: what was seen without being a mistake. The text ends
/// with the number of findings, or with `verdict` if there are none.
pub(crate) fn render(
    findings: &[Finding],
    notes: &[String],
    format: Format,
    verdict: &str,
) -> String {
    match format {
        Format::Text => {
            let notes = notes.iter().map(|note| printable(note));
            let mut lines: Vec<_> = notes.chain(findings.iter().map(Finding::text)).collect();
            lines.push(summary(findings).unwrap_or_else(|| styled(GOOD, verdict)));
            lines.join("\n") + "\n"
        }
        Format::Json => {
            let findings: Vec<_> = findings.iter().map(Finding::json).collect();
            let mut output = json!({"findings": findings});
            if let (false, Some(members)) = (notes.is_empty(), output.as_object_mut()) {
                members.insert("notes".to_owned(), json!(notes));
            }
            format!("{output:#}\n")
        }
        Format::Sarif => format!("{:#}\n", sarif::log(findings, notes)),
    }
}

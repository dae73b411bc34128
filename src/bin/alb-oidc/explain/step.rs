//! One check of the filter and its outcome, for people and machines to read.

use serde::Serialize;

use crate::output::{BAD, FAINT, GOOD, printable, styled};

pub(super) const SIGNATURE: &str = "signature";

/// Every check, in order.
pub(super) const CHECKS: [&str; 19] = [
    "form",
    "algorithm",
    "key id",
    "signer",
    "issuer",
    "client",
    "expiry",
    "key",
    SIGNATURE,
    "claims",
    "claims' expiry",
    "claims' issuer",
    "access token",
    "provider",
    "user id",
    "verified email",
    "user id's form",
    "groups",
    "rules",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Passed,
    Failed,
    NotReached,
}

/// One check, and the values that it compared.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) check: &'static str,
    pub(super) outcome: Outcome,
    pub(super) detail: String,
}

impl Step {
    pub(super) fn text(&self) -> String {
        let (mark, style) = match self.outcome {
            Outcome::Passed => ("ok  ", GOOD),
            Outcome::Failed => ("FAIL", BAD),
            Outcome::NotReached => ("-   ", FAINT),
        };
        let line = format!("{:<15} {}", self.check, printable(&self.detail));
        let line = if self.outcome == Outcome::NotReached {
            styled(style, &line)
        } else {
            line
        };
        format!("  {} {}", styled(style, mark), line.trim_end())
    }
}

//! Collects the warnings about one plugin config.

use crate::finding::{Code, Finding};
use crate::input::PluginConfig;

/// Warnings about one plugin config.
pub(super) struct Warnings<'p> {
    pub(super) plugin: &'p PluginConfig,
    /// Hosts on which a policy demands a JWT.
    pub(super) guarded_hosts: &'p [&'p str],
    pub(super) findings: &'p mut Vec<Finding>,
}

impl Warnings<'_> {
    pub(super) fn add(&mut self, code: Code, field: &str, message: &str) {
        let message = format!("{field}: {message}");
        self.findings
            .push(Finding::in_config(self.plugin, code, field, message));
    }
}

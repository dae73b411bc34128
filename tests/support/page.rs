//! Reads the `pluginConfig` of each section of a page in Markdown. Knows no field of it.

use serde_json::Value;
use std::collections::BTreeMap;

/// The start of a block with a configuration.
const BLOCK: &str = "\n```yaml\npluginConfig:";

/// The configurations of the page `file`, by the anchor of their section: `okta` for `## Okta`.
/// Each section has at most one.
pub fn plugin_configs(file: &str) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(super::repository(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut configs = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let anchor = anchor(section.lines().next().unwrap_or_default());
        let mut blocks = section.split(BLOCK).skip(1);
        let Some(block) = blocks.next() else { continue };
        assert!(blocks.next().is_none(), "{file}#{anchor}: two blocks");
        let yaml = block.split("\n```").next().unwrap_or_default();
        let mut yaml: Value = serde_saphyr::from_str(&format!("pluginConfig:{yaml}"))
            .unwrap_or_else(|error| panic!("{file}#{anchor}: {error}"));
        configs.insert(anchor, yaml["pluginConfig"].take());
    }
    configs
}

/// The configuration at `FILE#SECTION`.
pub(crate) fn plugin_config(page: &str) -> Value {
    let (file, section) = page.split_once('#').expect("FILE#SECTION");
    plugin_configs(file)
        .remove(section)
        .unwrap_or_else(|| panic!("{page}: no such section with a pluginConfig"))
}

/// The anchor that GitHub gives a heading.
pub fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let kept: String = heading.chars().filter(kept).collect();
    kept.to_lowercase().replace(' ', "-")
}

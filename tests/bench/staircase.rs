//! Modules that each do more than the one before, up to the host calls that this filter makes for a
//! cached token. They verify nothing. Their instructions tell what each call costs.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::envoy::{Plugin, interlock, rbac_filter};

/// A step, and what it does more than the one before.
const NAMES: [&str; LENGTH] = [
    "module that is entered for request headers",
    "+ entered to create the context",
    "+ entered to delete the context",
    "+ proxy_get_header_map_pairs",
    "+ proxy_remove_header_map_value",
    "+ proxy_replace_header_map_value",
    "+ proxy_set_property",
    "+ proxy_increment_metric, twice",
    "+ proxy_get_current_time_nanoseconds",
    "+ Envoy's RBAC filter, which admits each request",
    "+ the interlock's condition in it",
];
pub(crate) const LENGTH: usize = 11;
/// The steps with a module of their own. The others share one, and differ in their configuration:
/// under valgrind, Envoy has memory for few VMs.
const ENTRIES: usize = 3;
/// The calls of that module.
const CALLS: usize = 6;

/// The name of a step.
pub(crate) const fn name(step: usize) -> &'static str {
    NAMES[step]
}

/// The filter behind a step's module: the interlock in the last step, and in the step before an RBAC
/// filter that admits each request.
pub(crate) fn filter_behind(step: usize) -> Option<Value> {
    match LENGTH - step {
        1 => Some(interlock(&["admitted", "skipped"])),
        2 => Some(rbac_filter(&[json!({"any": true})])),
        _ => None,
    }
}

/// Assembles the modules in `folder`.
pub(crate) fn assemble(folder: &Path) -> Vec<PathBuf> {
    let entered = "(module
        (memory (export \"memory\") 1)
        (func (export \"_initialize\"))
        (func (export \"proxy_abi_version_0_2_1\"))
        (func (export \"proxy_on_memory_allocate\") (param i32) (result i32) (i32.const 0))
        (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) (i32.const 0))";
    let create = "(func (export \"proxy_on_context_create\") (param i32 i32))";
    let texts: [String; ENTRIES] = [
        format!("{entered})"),
        format!("{entered}{create})"),
        include_str!("staircase.wat").to_owned(),
    ];
    let assemble = |(number, text): (usize, &String)| {
        let file = folder.join(format!("step-{number}.wasm"));
        std::fs::write(&file, wat::parse_str(text).expect("WebAssembly text")).expect("the module");
        file
    };
    texts.iter().enumerate().map(assemble).collect()
}

/// The plugin of a step.
pub(crate) fn plugin(listener: &str, step: usize, modules: &[PathBuf]) -> Plugin {
    let calls = (step + 1).saturating_sub(ENTRIES).min(CALLS);
    let module = modules[step.min(ENTRIES - 1)].clone();
    Plugin {
        module,
        ..Plugin::new(listener, "x".repeat(calls))
    }
}

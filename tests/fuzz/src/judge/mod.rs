//! A second implementation of the filter: slow and plain, written from `docs/` instead of the
//! filter's code. Takes the `pluginConfig` as JSON, a request, the key servers' answers and the
//! time, and returns the expected outcome. Never calls the filter.

use regex::Regex;
use std::cell::RefCell;
use std::collections::HashMap;

pub mod access;
pub mod cookies;
pub mod identity;
pub mod jws;
pub mod keys;
pub mod verdict;

/// This regex, compiled once.
fn regex(text: &str) -> Regex {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| match compiled.get(text) {
        Some(regex) => regex.clone(),
        None => compiled
            .entry(text.to_owned())
            .or_insert(Regex::new(text).expect("a regex"))
            .clone(),
    })
}

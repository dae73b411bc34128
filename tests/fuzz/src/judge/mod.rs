//! The second reading of the rules: written from the README and the design, not from the filter's
//! code, slow and plain. It takes the `pluginConfig` as JSON, a request, what the key servers
//! answer and the time, and says what must become of the request. Nothing here may call the filter,
//! but for the names of its reasons.

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

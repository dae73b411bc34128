//! AuthService's transformers: of a table of regexes, the first that matches replaces its matches.

use std::borrow::Cow;

use regex_lite::Regex;

/// One entry of `userId.transformers` or `groups.transformers`.
#[derive(Clone, Debug)]
pub struct Transformer {
    /// Matched anywhere in the name; all matches are replaced.
    pub matches: Regex,
    /// The replacement.
    pub replaces: String,
}

/// The transformer for `name`, and its position in the table.
pub(super) fn transformer_for<'t>(
    table: &'t [Transformer],
    name: &str,
) -> Option<(usize, &'t Transformer)> {
    table
        .iter()
        .enumerate()
        .find(|(_, transformer)| transformer.matches.is_match(name))
}

/// `name`, with all matches of the first transformer that matches replaced.
// Not inlined: tests/panic_free.rs argues for its panics by this name.
#[inline(never)]
pub(super) fn transformed<'n>(table: &[Transformer], name: &'n str) -> Cow<'n, str> {
    match transformer_for(table, name) {
        Some((_, Transformer { matches, replaces })) => {
            matches.replace_all(name, replaces.as_str())
        }
        None => Cow::Borrowed(name),
    }
}

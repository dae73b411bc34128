//! Access rules, and the normalization of the paths that they match.

pub(crate) mod path;
pub(crate) mod regex;
pub(crate) mod rules;

//! Which requests need a token and who may pass, for every way in which an upstream may normalize a
//! path.

pub(crate) mod path;
pub(crate) mod regex;
pub(crate) mod rules;

//! The system clock. No other file of the tool reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::input::Trouble;

/// Seconds since 1970.
///
/// # Errors
/// The clock is set to a time before 1970.
pub(crate) fn seconds() -> Result<u64, Trouble> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .map(|since| since.as_secs())
        .map_err(|error| Trouble(error.to_string()))
}

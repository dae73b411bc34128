//! This machine's clock: the one place of the tool that reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::input::Trouble;

/// Seconds since the epoch.
///
/// # Errors
/// The clock stands before 1970.
pub(crate) fn seconds() -> Result<u64, Trouble> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|error| Trouble(error.to_string()))
}

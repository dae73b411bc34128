//! Writes text to the terminal: colours where it supports them, control characters escaped.

use std::io::{ErrorKind, Write as _};

use anstyle::{AnsiColor, Style};

use crate::input::Trouble;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const LOUD: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();
pub(crate) const TITLE: Style = Style::new().bold();

pub(crate) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes to standard output. A closed pipe is not an error: `head` closes it early.
///
/// # Errors
/// Any other write error.
pub(crate) fn print(text: &str) -> Result<(), Trouble> {
    let mut stdout = anstream::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Trouble(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error, apart from the result.
pub(crate) fn remark(text: &str) {
    // There is no other place to report an error.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// `text` with control and invisible characters escaped. An attacker may have written it.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| {
        if matches!(c, '"' | '\'' | '\\') {
            c.to_string()
        } else {
            c.escape_debug().to_string()
        }
    };
    text.chars().map(harmless).collect()
}

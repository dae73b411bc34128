//! Text for people: printed in one go, in colour where that reaches a terminal that has any. Nothing here knows what it says.

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

/// Writes to standard output. A reader who has seen enough, such as `head`, is no trouble.
pub(crate) fn print(text: &str) -> Result<(), Trouble> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Trouble(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}

/// Writes to standard error, for what is said beside the result.
pub(crate) fn remark(text: &str) {
    // There is nowhere left to say that this failed.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// `text` without what would steer the terminal or cannot be seen: it may be an attacker's.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| if matches!(c, '"' | '\'' | '\\') { c.to_string() } else { c.escape_debug().to_string() };
    text.chars().map(harmless).collect()
}

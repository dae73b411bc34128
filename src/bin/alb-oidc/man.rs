//! `alb-oidc man`: prints the manual page of the tool or of a command, which clap_mangen generates.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man as Page;

use crate::output::print;
use crate::trouble::Trouble;

const EXAMPLES: &str = "\
Examples:
  alb-oidc man > alb-oidc.1
  alb-oidc man check > alb-oidc-check.1";

/// Print the manual page of alb-oidc, or of a command
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// The command; without it, the page that lists all commands
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

impl Man {
    /// Prints a page of `tool`.
    pub(crate) fn run(self, mut tool: Command) -> Result<ExitCode, Trouble> {
        // Commands get their full names only then.
        tool.build();
        let command = match &self.command {
            None => &tool,
            Some(name) => tool.find_subcommand(name).ok_or_else(|| {
                Trouble(format!(
                    "found {name:?}, expected a command: alb-oidc --help lists them"
                ))
            })?,
        };
        let mut page = Vec::new();
        Page::new(command.clone())
            .render(&mut page)
            .map_err(|error| Trouble(format!("manual page: {error}")))?;
        print(&String::from_utf8_lossy(&page))?;
        Ok(ExitCode::SUCCESS)
    }
}

//! `alb-oidc completions`: prints the completions of a shell, which clap_complete generates.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::print;
use crate::trouble::Trouble;

const EXAMPLES: &str = "\
Examples:
  alb-oidc completions bash > alb-oidc.bash     # for ~/.local/share/bash-completion/completions
  alb-oidc completions zsh > _alb-oidc          # for a directory of $fpath";

/// Print completions for a shell
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Prints the completions of `tool`.
    pub(crate) fn run(self, mut tool: Command) -> Result<ExitCode, Trouble> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut tool, "alb-oidc", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}

//! `alb-oidc`: the filter's core on the command line. Parses arguments, calls one command, prints what went wrong in one
//! line. Decides nothing about a token or a config: the library does.

mod check;
mod clock;
mod echo;
mod explain;
mod input;
mod mint;
mod native;
mod output;
mod page;
mod serve;
mod simulate;
mod tenancy;
mod token;
mod transform;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

const EXAMPLE: &str = r#"Example: why was this token refused?
  alb-oidc explain --file token.txt --config wasm-plugin.yaml"#;

/// Work on sign-in behind an AWS load balancer
///
/// Each command's --help shows an example.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Simulate(simulate::Simulate),
    Check(check::Check),
    Explain(explain::Explain),
    Token(token::Token),
    Transform(transform::Transform),
    Tenancy(tenancy::Tenancy),
    Echo(echo::Echo),
}

fn main() -> ExitCode {
    let command = match Arguments::try_parse() {
        Ok(Arguments { command }) => command,
        Err(error) => return refuse(&error),
    };
    let outcome = match command {
        Command::Simulate(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::Transform(command) => command.run(),
        Command::Tenancy(command) => command.run(),
        Command::Echo(command) => command.run(),
    };
    outcome.unwrap_or_else(|trouble| {
        for line in trouble.to_string().lines() {
            output::remark(&format!("alb-oidc: {}", output::printable(line)));
        }
        ExitCode::from(2)
    })
}

/// Help and version as clap prints them; a mistake in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    let is_help =
        [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    if is_help.contains(&error.kind()) {
        error.exit();
    }
    let text = error.to_string();
    // What comes behind the first empty line is usage.
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let line = lines.join(" ");
    output::remark(&format!("alb-oidc: {}", output::printable(line.trim_start_matches("error: "))));
    ExitCode::from(2)
}

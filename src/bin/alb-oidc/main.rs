//! `alb-oidc`: the filter's core on the command line. Parses arguments, calls one command, prints what went wrong in one
//! line. Decides nothing about a token or a config: the library does.

mod check;
mod explain;
mod input;
mod mint;
mod native;
mod output;
mod token;
mod transform;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Work on sign-in behind an AWS load balancer
///
/// Each command's --help shows an example.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Check),
    Explain(explain::Explain),
    Token(token::Token),
    Transform(transform::Transform),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome = match command {
        Command::Check(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::Transform(command) => command.run(),
    };
    outcome.unwrap_or_else(|trouble| {
        for line in trouble.to_string().lines() {
            output::remark(&format!("alb-oidc: {}", output::printable(line)));
        }
        ExitCode::from(2)
    })
}

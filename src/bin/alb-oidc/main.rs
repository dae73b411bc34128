//! `alb-oidc`: the filter's core on the command line. Parses arguments, calls one command, prints what went wrong in one
//! line. Decides nothing about a token or a config: the library does.

mod check;
mod echo;
mod explain;
mod input;
mod mint;
mod native;
mod output;
mod page;
mod serve;
mod simulate;
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
    Simulate(simulate::Options),
    Check(check::Check),
    Explain(explain::Explain),
    Token(token::Token),
    Transform(transform::Transform),
    Echo(echo::Options),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome = match command {
        Command::Simulate(options) => done(simulate::run(options)),
        Command::Check(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::Transform(command) => command.run(),
        Command::Echo(options) => done(echo::run(options)),
    };
    outcome.unwrap_or_else(|trouble| {
        for line in trouble.to_string().lines() {
            output::remark(&format!("alb-oidc: {}", output::printable(line)));
        }
        ExitCode::from(2)
    })
}

fn done(outcome: Result<(), String>) -> Result<ExitCode, input::Trouble> {
    outcome.map(|()| ExitCode::SUCCESS).map_err(input::Trouble)
}

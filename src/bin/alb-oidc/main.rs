//! `alb-oidc`: the filter's core on the command line. Parses arguments, calls one command, prints what went wrong in one
//! line. Decides nothing about a token or a config: the library does.

mod echo;
mod mint;
mod page;
mod serve;
mod simulate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Work on sign-in behind an AWS load balancer: check a plugin config, explain a token, stand in for the load balancer.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Simulate(simulate::Options),
    Echo(echo::Options),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Simulate(options) => simulate::run(options),
        Command::Echo(options) => echo::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("alb-oidc: {problem}");
            ExitCode::from(2)
        }
    }
}

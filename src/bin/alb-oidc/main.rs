//! `alb-oidc`: the filter's core on the command line. Parses arguments, calls one command, prints what went wrong in one
//! line. Decides nothing about a token or a config: the library does.

mod mint;

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
enum Command {}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    match command {}
}

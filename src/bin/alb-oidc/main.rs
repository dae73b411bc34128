//! The command-line tool `alb-oidc`. Parses arguments, runs one command, and prints errors on one
//! line each. The library validates tokens and configs.

// As in the library, code that can panic does not compile.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod audit;
mod aws;
mod check;
mod clock;
mod completions;
mod doctor;
mod echo;
mod explain;
mod finding;
mod init;
mod input;
mod man;
mod mint;
mod native;
mod output;
mod page;
mod schema;
mod serve;
mod simulate;
mod tenancy;
mod token;
mod transform;
mod trouble;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

const EXAMPLE: &str = r#"Example: show why the filter denies a request with this token
  alb-oidc explain --file token.txt --config wasm-plugin.yaml"#;

/// Check, explain and simulate sign-in behind an AWS Application Load Balancer
///
/// The --help of each command shows an example.
#[derive(Parser)]
#[command(name = "alb-oidc", version, arg_required_else_help = true, after_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Simulate(simulate::Simulate),
    Init(init::Init),
    Check(check::Check),
    Audit(audit::Audit),
    Doctor(doctor::Doctor),
    Schema(schema::Schema),
    Explain(explain::Explain),
    Token(token::Token),
    Transform(transform::Transform),
    Tenancy(tenancy::Tenancy),
    Echo(echo::Echo),
    Completions(completions::Completions),
    Man(man::Man),
}

fn main() -> ExitCode {
    let command = match Arguments::try_parse() {
        Ok(Arguments { command }) => command,
        Err(error) => return usage_error(&error),
    };
    let outcome = match command {
        Command::Simulate(command) => command.run(),
        Command::Init(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::Transform(command) => command.run(),
        Command::Tenancy(command) => command.run(),
        Command::Echo(command) => command.run(),
        Command::Completions(command) => command.run(Arguments::command()),
        Command::Man(command) => command.run(Arguments::command()),
    };
    outcome.unwrap_or_else(|trouble| {
        for line in trouble.to_string().lines() {
            output::remark(&format!("alb-oidc: {}", output::printable(line)));
        }
        ExitCode::from(2)
    })
}

/// Prints help and version as clap does, and an error on one line.
fn usage_error(error: &clap::Error) -> ExitCode {
    let is_help = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    if is_help.contains(&error.kind()) {
        error.exit();
    }
    let text = error.to_string();
    // The usage follows the first empty line.
    let lines: Vec<_> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let line = lines.join(" ");
    output::remark(&format!(
        "alb-oidc: {}",
        output::printable(line.trim_start_matches("error: "))
    ));
    ExitCode::from(2)
}

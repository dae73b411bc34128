//! `alb-oidc transform`: shows how `userId` of a plugin config transforms user ids. The library
//! transforms them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alb_oidc_filter::{Config, UserIdRules};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::input::{Trouble, config_of, read_config, read_text};
use crate::output::{BAD, FAINT, print, printable, styled};

const EXAMPLES: &str = r#"Examples:
  alb-oidc transform --config wasm-plugin.yaml ann@example.com
  alb-oidc transform ann@example.com bob@example.org \
      --transformers '[{"matches": "@example\\.com$", "replaces": ""}]'"#;

/// Try the transformers of a plugin config, or AuthService's USERID_TRANSFORMERS, on user ids
///
/// Exit status: 0 if every user id is valid, 1 if the filter denies one, 2 if an input cannot be
/// read.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Transform {
    /// A pluginConfig, or the WasmPlugin or TrafficExtension that contains it. Its lowercase and
    /// prefix also apply
    #[arg(long, required_unless_present = "transformers")]
    config: Option<PathBuf>,
    /// The value of AuthService's USERID_TRANSFORMERS
    #[arg(long, value_name = "JSON", conflicts_with = "config")]
    transformers: Option<String>,
    /// Values of the claim. None or `-`: one per line of standard input
    user_ids: Vec<String>,
}

impl Transform {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let config = match (&self.config, &self.transformers) {
            (Some(path), _) => read_config(path)?.1,
            (None, transformers) => config_with(transformers.as_deref().unwrap_or_default())?,
        };
        let rules = &config.users.identity.user_id;
        let user_ids = match self.user_ids.as_slice() {
            [] => lines()?,
            [one] if one == "-" => lines()?,
            given => given.to_vec(),
        };
        let outcomes: Vec<_> = user_ids
            .iter()
            .map(|user_id| outcome(rules, user_id))
            .collect();
        print(
            &outcomes
                .iter()
                .map(|(line, _)| format!("{line}\n"))
                .collect::<String>(),
        )?;
        Ok(if outcomes.iter().all(|(_, good)| *good) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn lines() -> Result<Vec<String>, Trouble> {
    Ok(read_text(Path::new("-"))?
        .1
        .lines()
        .map(str::to_owned)
        .collect())
}

/// A config with these transformers.
fn config_with(transformers: &str) -> Result<Config, Trouble> {
    let transformers: Value = serde_json::from_str(transformers).map_err(|error| {
        Trouble(format!(
            "--transformers: found invalid JSON ({error}), expected an array of transformers"
        ))
    })?;
    let members = Map::from_iter([("userId".to_owned(), json!({"transformers": transformers}))]);
    config_of(members).map_err(|mistakes| {
        let lines = mistakes
            .iter()
            .map(|mistake| format!("--transformers: {mistake}"));
        Trouble(lines.collect::<Vec<_>>().join("\n"))
    })
}

/// The output line for one user id, and whether the result is valid.
fn outcome(rules: &UserIdRules, user_id: &str) -> (String, bool) {
    let by = match rules.transformer(&rules.cased(user_id)) {
        Some((position, transformer)) => {
            format!("by transformers[{position}] `{}`", transformer.matches)
        }
        None => "no transformer matches".to_owned(),
    };
    let by = styled(FAINT, &format!("({})", printable(&by)));
    let before = printable(user_id);
    match rules.made_of(user_id) {
        Ok(id) => (format!("{before} -> {} {by}", printable(&id)), true),
        Err(reason) => (
            format!(
                "{before} -> {} {by}",
                styled(BAD, &format!("denied: {reason}"))
            ),
            false,
        ),
    }
}

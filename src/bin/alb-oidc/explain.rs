//! `alb-oidc explain`: each check that the filter makes of a token, in its order, passed or failed,
//! and the headers that upstream would see. The library's gate makes the checks and decides; an
//! observer records them. Output marks what it shows before the signature has been verified.

mod advice;
mod judge;
mod observer;
mod rules;
mod step;
mod unverified;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alb_oidc_filter::{
    Config, Decision, FetchResult, HeaderEdit, KeyFormat, KeyId, P256Key, PublicKey, Timestamp,
};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::clock;
use crate::input::{PluginConfig, Trouble, read_config, read_text};
use crate::mint::AlbKey;
use crate::output::{BAD, FAINT, GOOD, LOUD, TITLE, print, printable, styled};
use advice::{advice, mistaken};
use judge::{Request, Verdict, judge};
use observer::Tokens;
use step::{Outcome, SIGNATURE, Step};
use unverified::{Pasted, Unverified};

const EXAMPLES: &str = r#"Examples:
  alb-oidc explain --file token.txt
  alb-oidc explain --file token.txt --config wasm-plugin.yaml --keys keys
  alb-oidc explain - --config wasm-plugin.yaml --key alb-key.pem < token.txt
  alb-oidc explain --file token.txt --config wasm-plugin.yaml --keys keys \
      --path /pipeline/ --host kubeflow.example.com"#;

/// Run each check of the filter on a token, and show the headers for the application
///
/// Without --config, the token is only decoded. Exit status: 0 if the request would pass, 1 if
/// it would not or the outcome is unknown, 2 if an input cannot be read.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// The value of x-amzn-oidc-data; `-`: from standard input
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    token: Option<String>,
    /// Read the token from this file
    #[arg(long)]
    file: Option<PathBuf>,
    /// A pluginConfig, or the WasmPlugin or TrafficExtension that contains it
    #[arg(long)]
    config: Option<PathBuf>,
    /// The key as PEM: the answer of the key server, or the private key of `alb-oidc token`
    #[arg(long, value_name = "PEM", conflicts_with = "keys")]
    key: Option<PathBuf>,
    /// A directory with a PEM file for each key, named by its key id. Replaces the key server
    #[arg(long, value_name = "DIRECTORY")]
    keys: Option<PathBuf>,
    /// The value of x-amzn-oidc-accesstoken in the same request, if the config has `accessToken`;
    /// `@FILE`: from a file
    #[arg(long, value_name = "TOKEN", requires = "config")]
    access_token: Option<String>,
    /// The identity provider's JSON Web Key Set
    #[arg(long, value_name = "FILE", requires = "access_token")]
    jwks: Option<PathBuf>,
    /// The time of the request: RFC 3339, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// The path of a request. With it, the rules are applied too
    #[arg(long, requires = "config")]
    path: Option<String>,
    /// The host of that request
    #[arg(long, requires = "path", default_value = "localhost")]
    host: String,
    /// The method of that request
    #[arg(long, requires = "path", default_value = "GET")]
    method: String,
    /// Print the signature too. The output then contains a token that works until it expires
    #[arg(long)]
    show_signature: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The output of the command.
#[derive(Serialize)]
struct Report {
    notes: Vec<String>,
    token: Unverified,
    verified: bool,
    checks: Vec<Step>,
    #[serde(flatten)]
    verdict: Told,
}

/// The outcome of the request, in words.
#[derive(Serialize)]
struct Told {
    verdict: &'static str,
    passes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
    advice: Vec<String>,
    set: Vec<(String, String)>,
    removed: Vec<String>,
}

impl Explain {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let mut pasted = Pasted::new(&self.text()?);
        let mut token = Unverified::decode(&pasted.token);
        pasted.notes.extend(mistaken(&token, self.token.as_deref()));
        if !self.show_signature {
            token.signature = None;
        }
        let report = match &self.config {
            None => {
                let message = "nothing was verified: give --config to have it checked";
                let verdict = Told::undecided(
                    "not checked",
                    message,
                    advice::config_for(&pasted.token, &token),
                );
                Report {
                    verified: false,
                    checks: Vec::new(),
                    verdict,
                    notes: pasted.notes,
                    token,
                }
            }
            Some(path) => self.explain(path, pasted, token)?,
        };
        let passes = report.verdict.passes;
        print(&if self.json {
            serde_json::to_string_pretty(&report).map_err(|error| Trouble(error.to_string()))?
                + "\n"
        } else {
            report.text()
        })?;
        // Without a config, the command only decodes.
        Ok(
            if passes || (self.config.is_none() && report.token.header.is_some()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            },
        )
    }

    fn text(&self) -> Result<String, Trouble> {
        match (self.token.as_deref(), &self.file) {
            (_, Some(path)) => Ok(read_text(path)?.1),
            (Some("-"), None) => Ok(read_text(Path::new("-"))?.1),
            (token, None) => Ok(token.unwrap_or_default().to_owned()),
        }
    }

    fn explain(&self, path: &Path, pasted: Pasted, token: Unverified) -> Result<Report, Trouble> {
        let (plugin, mut config) = read_config(path)?;
        let mut notes = pasted.notes;
        let request = self.path.as_deref().map(|path| Request {
            path,
            host: &self.host,
            method: &self.method,
        });
        let positions = 0..config.access.rules.len();
        let lines: Vec<_> = positions
            .map(|position| plugin.line(&format!("rules[{position}]")))
            .collect();
        if request.is_none() && !config.access.rules.is_empty() {
            config.access.rules.clear();
            notes.push(
                "the rules were not looked at: give --path, and --host and --method where they matter".to_owned(),
            );
        }
        let now = match self.at {
            Some(at) => at,
            None => Timestamp::from_seconds(clock::seconds()?),
        };
        let find = |id| self.find_key(id);
        let access_token = match self
            .access_token
            .as_deref()
            .map(|text| (text, text.strip_prefix('@')))
        {
            Some((_, Some(path))) => read_text(Path::new(path))?.1,
            Some((text, None)) => text.to_owned(),
            None => String::new(),
        };
        let key_set = self
            .jwks
            .as_deref()
            .map(read_text)
            .transpose()?
            .map(|(_, text)| text);
        let tokens = Tokens {
            text: &pasted.token,
            decoded: &token,
            access: access_token.trim(),
            key_set: key_set.as_deref(),
        };
        let verdict = judge(&config, &lines, &tokens, request.as_ref(), &find, now)?;
        let told = Told::new(&plugin, &config, &verdict, &pasted.token);
        let verified = verdict
            .steps
            .iter()
            .any(|step| step.check == SIGNATURE && step.outcome == Outcome::Passed);
        Ok(Report {
            notes,
            token,
            verified,
            checks: verdict.steps,
            verdict: told,
        })
    }

    /// The replacement of the key server's answer for the key `id`; `None` without one.
    fn find_key(&self, id: KeyId) -> Result<Option<FetchResult>, Trouble> {
        if let Some(path) = &self.key {
            let (name, pem) = read_text(path)?;
            let public = AlbKey::from_pem(&pem)
                .ok()
                .and_then(|key| key.public_pem().ok())
                .unwrap_or(pem);
            return P256Key::from_pem(public.as_bytes())
                .map(|key| Some(FetchResult::Key(PublicKey::P256(key))))
                .ok_or_else(|| {
                    Trouble(format!(
                        "{name}: found no key, expected one PEM `PUBLIC KEY` of the curve P-256"
                    ))
                });
        }
        let Some(directory) = &self.keys else {
            return Ok(None);
        };
        if !directory.is_dir() {
            return Err(Trouble(format!(
                "{}: found no directory, expected one with a file for each key",
                directory.display()
            )));
        }
        let path = directory.join(id.to_string());
        if !path.exists() {
            return Ok(Some(FetchResult::NotFound));
        }
        let key = P256Key::from_pem(read_text(&path)?.1.as_bytes());
        Ok(Some(key.map_or(FetchResult::Invalid, |key| {
            FetchResult::Key(PublicKey::P256(key))
        })))
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let expected = "expected a time such as 2026-01-01T12:00:00Z, or seconds since 1970";
    let seconds = text.parse::<i64>().or_else(|_| {
        text.parse::<jiff::Timestamp>()
            .map(jiff::Timestamp::as_second)
    });
    let seconds = seconds.ok().and_then(|seconds| u64::try_from(seconds).ok());
    seconds
        .map(Timestamp::from_seconds)
        .ok_or_else(|| expected.to_owned())
}

impl Told {
    fn undecided(verdict: &'static str, message: &str, advice: Vec<String>) -> Self {
        let message = message.to_owned();
        Self {
            verdict,
            passes: false,
            status: None,
            reason: None,
            message,
            advice,
            set: Vec::new(),
            removed: Vec::new(),
        }
    }

    fn new(plugin: &PluginConfig, config: &Config, verdict: &Verdict, token: &str) -> Self {
        let advice = |reason| advice(reason, config, verdict, token);
        match &verdict.decision {
            Decision::Admit(edits) => Self {
                passes: true,
                ..Self::undecided(
                    "admitted",
                    "the request passes, with an identity",
                    Vec::new(),
                )
            }
            .with(edits),
            Decision::Skip(edits) => {
                let message = format!(
                    "{} lets the request pass without a token, and without an identity",
                    verdict.rule
                );
                Self {
                    passes: true,
                    ..Self::undecided("skipped", &message, Vec::new())
                }
                .with(edits)
            }
            Decision::Deny(reason) => Self {
                status: Some(reason.status()),
                reason: Some(reason.name()),
                ..Self::undecided("denied", reason.message(), advice(*reason))
            },
            Decision::Report(reason, edits) => Self {
                passes: true,
                reason: Some(reason.name()),
                ..Self::undecided(
                    "reported",
                    "the config only reports: the request passes, but without an identity",
                    advice(*reason),
                )
            }
            .with(edits),
            Decision::SignOut(_) => {
                Self::undecided("signed out", "the request signs the user out", Vec::new())
            }
            Decision::NeedKey(name) => {
                let source = config.key_source(name.source);
                let url = source.map_or_else(String::new, |source| {
                    plugin.key_url(source, &name.id.to_string())
                });
                let (file, option) = match source.map(|source| source.format) {
                    Some(KeyFormat::KeySet) => ("jwks.json".to_owned(), "--jwks jwks.json"),
                    _ => (format!("keys/{}", name.id), "--keys keys"),
                };
                let advice = vec![
                    format!("fetch the key: curl -fsS --create-dirs -o {file} '{url}'"),
                    format!("and run this again with: {option}"),
                ];
                Self::undecided(
                    "undecided",
                    "the signature was not checked: the key is missing",
                    advice,
                )
            }
        }
    }

    fn with(mut self, edits: &[HeaderEdit]) -> Self {
        for edit in edits {
            match edit {
                HeaderEdit::Set(name, value) => self
                    .set
                    .push((name.clone(), String::from_utf8_lossy(value).into_owned())),
                HeaderEdit::Remove(name) => self.removed.push(name.clone()),
            }
        }
        self
    }
}

impl Report {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .notes
            .iter()
            .map(|note| format!("{} {}", styled(LOUD, "note:"), printable(note)))
            .collect();
        let warning = if self.verified {
            styled(GOOD, "(verified)")
        } else {
            styled(LOUD, "(NOT verified: anyone can write this)")
        };
        lines.push(format!("{} {warning}", styled(TITLE, "The token says")));
        let mut part = |name: &str, value: &Option<Value>| {
            let value = value.as_ref().map_or_else(
                || "no JSON object in base64".to_owned(),
                ToString::to_string,
            );
            lines.push(format!("  {name:<10} {}", printable(&value)));
        };
        part("header", &self.token.header);
        part("claims", &self.token.claims);
        if let Some(signature) = &self.token.signature {
            lines.push(format!("  {:<10} {}", "signature", printable(signature)));
        }
        if !self.checks.is_empty() {
            lines.push(format!(
                "\n{}",
                styled(TITLE, "The filter's checks, in its order")
            ));
            lines.extend(self.checks.iter().map(Step::text));
        }
        let Told {
            verdict,
            passes,
            status,
            reason,
            message,
            advice,
            set,
            removed,
        } = &self.verdict;
        let style = match (passes, status) {
            (true, _) => GOOD,
            (false, Some(_)) => BAD,
            (false, None) => LOUD,
        };
        let status = status.map_or_else(String::new, |status| format!(" {status}"));
        let reason = reason.map_or_else(String::new, |reason| format!(" {reason}"));
        lines.push(format!(
            "\n{}: {message}",
            styled(
                style,
                &format!("{}{status}{reason}", verdict.to_uppercase())
            )
        ));
        lines.extend(
            advice
                .iter()
                .map(|advice| format!("  {}", printable(advice))),
        );
        if *passes || !set.is_empty() {
            lines.push(styled(TITLE, "Upstream sees"));
            lines.extend(
                set.iter()
                    .map(|(name, value)| format!("  {}: {}", printable(name), printable(value))),
            );
            if set.is_empty() {
                lines.push("  no identity headers".to_owned());
            }
        }
        if !removed.is_empty() {
            lines.push(styled(
                FAINT,
                &format!("  and not: {}", printable(&removed.join(", "))),
            ));
        }
        lines.join("\n") + "\n"
    }
}

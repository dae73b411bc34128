//! `alb-oidc audit`: compares a load balancer, as the AWS CLI prints it, with the plugin config.
//! Calls no API.

mod actions;
mod network;
mod sign_in;

use std::path::PathBuf;
use std::process::ExitCode;

use alb_oidc_filter::{Config, RequestHead};
use clap::Args;
use serde_json::Value;

use crate::aws::{Action, COMMANDS, Located, Snapshot, load_balancer_of};
use crate::check::of_config;
use crate::finding::{self, Code, Finding, Format, report};
use crate::input::{PluginConfig, Trouble, read_only};
use crate::output::print;

const EXAMPLES: &str = r#"Examples:
  alb-oidc audit --commands
  alb-oidc audit --config values.yaml load-balancers.json listeners.json rules-*.json
  alb-oidc audit --config values.yaml --strict --output sarif *.json"#;

/// The commands for the lists that only `audit` reads.
const MORE_COMMANDS: &str = r#"aws elbv2 describe-target-groups --load-balancer-arn "$ARN" --output json > target-groups.json
for group in $(aws elbv2 describe-target-groups --load-balancer-arn "$ARN" --query 'TargetGroups[].TargetGroupArn' --output text); do
  aws elbv2 describe-target-health --target-group-arn "$group" --output json > "target-health-${group##*/}.json"
done
aws elbv2 describe-load-balancer-attributes --load-balancer-arn "$ARN" --output json > attributes.json
aws ec2 describe-security-groups --group-ids GROUPS_OF_THE_TARGETS --output json > security-groups.json
alb-oidc audit --config values.yaml *.json
"#;

/// Compare a load balancer with the plugin config
///
/// Reads the AWS CLI's output about the load balancer, and judges the parts in the input.
/// docs/operations.md describes each finding by its code. Calls no API.
///
/// Exit status: 0, 1 if there are errors, 2 if the input cannot be read.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Audit {
    /// Output of the AWS CLI, in JSON: --commands prints the commands
    #[arg(value_name = "FILE", required_unless_present = "commands")]
    files: Vec<PathBuf>,
    /// The chart's values, a pluginConfig, or the resource that contains it
    #[arg(long, required_unless_present = "commands")]
    config: Option<PathBuf>,
    /// Print the AWS commands for the input
    #[arg(long, conflicts_with_all = ["config", "files"])]
    commands: bool,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with status 1 for warnings, too
    #[arg(long)]
    strict: bool,
}

/// The actions of a rule or of a listener.
struct Site<'a> {
    load_balancer: String,
    /// The ARN of the rule or listener.
    arn: &'a str,
    actions: &'a [Action],
    /// The field with the actions.
    field: &'static str,
    place: Located<()>,
}

/// Input and result of the checks.
struct Auditor<'a> {
    snapshot: &'a Snapshot,
    plugin: &'a PluginConfig,
    config: &'a Config,
    findings: Vec<Finding>,
}

impl Audit {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let Some(config) = self.config.filter(|_| !self.commands) else {
            print(&format!("{COMMANDS}{MORE_COMMANDS}"))?;
            return Ok(ExitCode::SUCCESS);
        };
        let plugin = read_only(&config)?;
        let snapshot = Snapshot::read(&self.files)?;
        let mut findings = Vec::new();
        of_config(&plugin, &[], &mut findings);
        if let Ok(config) = &plugin.outcome {
            let mut auditor = Auditor {
                snapshot: &snapshot,
                plugin: &plugin,
                config,
                findings,
            };
            auditor.sign_ins();
            auditor.actions();
            auditor.network();
            findings = auditor.findings;
        }
        finding::sort(&mut findings);
        let missing = [
            ("listeners", snapshot.listeners.is_empty()),
            ("rules", snapshot.rules.is_empty()),
        ];
        let missing = missing.iter().filter(|(_, is_missing)| *is_missing);
        let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
        let verdict = if missing.is_empty() {
            "the load balancer fits the config".to_owned()
        } else {
            let missing = missing.join(" and no ");
            format!("no mistakes in the input, which has no {missing}: see --commands")
        };
        print(&report::render(&findings, &[], self.output, &verdict))?;
        Ok(finding::exit_code(&findings, self.strict))
    }
}

impl<'a> Auditor<'a> {
    /// The actions of load balancers that the config trusts: those of rules, and the default actions
    /// of listeners without a default rule in the input.
    fn sites(&self) -> Vec<Site<'a>> {
        let snapshot = self.snapshot;
        let has_default_rule = |listener: &str| {
            let mut rules = snapshot.rules.iter().map(|rule| &rule.value);
            rules.any(|rule| rule.is_default() && rule.listener_arn().as_deref() == Some(listener))
        };
        let rules = snapshot.rules.iter().map(|rule| {
            let (arn, actions) = (&rule.value.rule_arn, &rule.value.actions);
            (arn, actions, "Actions", rule.place())
        });
        let listeners = snapshot.listeners.iter();
        let listeners = listeners.filter(|known| !has_default_rule(&known.value.listener_arn));
        let listeners = listeners.map(|listener| {
            let (arn, actions) = (
                &listener.value.listener_arn,
                &listener.value.default_actions,
            );
            (arn, actions, "DefaultActions", listener.place())
        });
        let sites = rules.chain(listeners);
        let sites = sites.filter_map(|(arn, actions, field, place)| {
            let load_balancer = load_balancer_of(arn).filter(|arn| self.is_trusted(arn))?;
            Some(Site {
                load_balancer,
                arn,
                actions,
                field,
                place,
            })
        });
        sites.collect()
    }

    /// Adds a finding in the field `field` of an element of the AWS CLI's output.
    fn add<T>(&mut self, code: Code, at: &Located<T>, field: &str, resource: &str, message: &str) {
        let (file, line, field) = self.snapshot.place(at, field);
        self.findings.push(Finding {
            code,
            file,
            line,
            resource: Some(resource.to_owned()),
            message: format!("{field}: {message}"),
            field,
        });
    }

    /// Adds a finding in the plugin config.
    fn add_in_config(&mut self, code: Code, field: &str, message: &str) {
        let message = format!("{field}: {message}");
        self.findings
            .push(Finding::in_config(self.plugin, code, field, message));
    }

    /// Whether the config trusts this load balancer. If it trusts none of the input, all of them
    /// count: the config then has a wrong ARN, which is a finding of its own.
    fn is_trusted(&self, arn: &str) -> bool {
        let is_known = |arn: &str| {
            let mut known = self.config.load_balancers.iter();
            known.any(|known| known.arn == arn)
        };
        let rules = self.snapshot.rules.iter().map(|rule| &rule.value.rule_arn);
        let listeners = self.snapshot.listeners.iter();
        let listeners = listeners.map(|listener| &listener.value.listener_arn);
        let load_balancers = self.snapshot.load_balancers.iter();
        let load_balancers = load_balancers.map(|known| known.value.load_balancer_arn.clone());
        let mut of_input = rules
            .chain(listeners)
            .filter_map(|arn| load_balancer_of(arn))
            .chain(load_balancers);
        is_known(arn) || !of_input.any(|other| is_known(&other))
    }

    /// Whether such requests need no token. Wildcards stand for any text.
    fn is_open(&self, method: &str, host: &str, path: &str) -> bool {
        let plain = |text: &str| text.replace('*', "any").replace('?', "x");
        let (host, path) = (plain(host), plain(path));
        let head = [
            (":method", method),
            (":authority", host.as_str()),
            (":path", path.as_str()),
        ];
        let head = head.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let requirement = self
            .config
            .access
            .requirement(&RequestHead::new(head.to_vec()));
        let is_sign_out = self
            .config
            .sign_out
            .as_ref()
            .is_some_and(|out| out.path == path);
        requirement.is_optional() || is_sign_out || self.machine_clients("host") == Some(&host)
    }

    /// A field of `machineClients` of the chart's values, if they are enabled.
    fn machine_clients(&self, field: &str) -> Option<&str> {
        let clients = self.plugin.values.as_ref()?.value.get("machineClients")?;
        let is_enabled = clients.get("enabled") == Some(&Value::Bool(true));
        clients.get(field).filter(|_| is_enabled)?.as_str()
    }
}

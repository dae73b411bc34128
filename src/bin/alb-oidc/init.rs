//! `alb-oidc init`: writes values for the chart, from the AWS CLI's output or from flags. The
//! library validates the config.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use alb_oidc_filter::Config;
use clap::Args;
use serde::Serialize;
use serde_saphyr::ser_options;

use crate::aws::{COMMANDS, DEFAULT_COOKIE, DEFAULT_TIMEOUT, SignIn, Snapshot, load_balancer_of};
use crate::input::Trouble;
use crate::output::print;

const EXAMPLES: &str = r#"Examples:
  alb-oidc init
  alb-oidc init load-balancers.json listeners.json rules-*.json > values.yaml
  alb-oidc init --arn arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188 \
    --issuer https://issuer.example.com --client-id kubeflow --host kubeflow.example.com"#;

const HEAD: &str = "# Values for istio/chart, by alb-oidc init. Next: write image.url, which `make image` prints, then\n\
     # helm template alb-oidc istio/chart --namespace istio-system --values values.yaml | alb-oidc check -\n";

const NO_SIGN_OUT: &str =
    "# Users cannot sign out: give --sign-out-url, or --host for a Cognito user pool.\n";
/// The sign-out path of Kubeflow's dashboard.
const SIGN_OUT_PATH: &str = "/oauth2/sign_out";

/// Write the chart's values for an existing load balancer
///
/// Without arguments, prints the AWS commands for its input. With files, the flags select
/// among several load balancers, issuers and clients. Calls no API. Exit status: 0, or 2 if the
/// input has mistakes.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Init {
    /// Output of aws elbv2 describe-load-balancers, describe-listeners and describe-rules, in JSON
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// ARN of the load balancer
    #[arg(long)]
    arn: Option<String>,
    /// Issuer of the listener rules
    #[arg(long)]
    issuer: Option<String>,
    /// Client id of the listener rules
    #[arg(long)]
    client_id: Option<String>,
    /// A host that browsers use. Repeat it for each
    #[arg(long = "host")]
    hosts: Vec<String>,
    /// Name of the session cookie, without -N
    #[arg(long)]
    session_cookie: Option<String>,
    /// Host of the Cognito user pool's sign-in pages
    #[arg(long)]
    cognito_host: Option<String>,
    /// Where sign-out redirects to, for another provider than Cognito
    #[arg(long)]
    sign_out_url: Option<String>,
    /// URL of the key server, where AWS documents none
    #[arg(long)]
    key_server: Option<String>,
    /// URL of the image
    #[arg(long, default_value = "")]
    image: String,
}

/// One way to sign in at one load balancer.
#[derive(Clone, PartialEq, Eq)]
struct Entrance {
    arn: String,
    sign_in: SignIn,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Values {
    image: Image,
    #[serde(skip_serializing_if = "Option::is_none")]
    alb: Option<Alb>,
    plugin_config: PluginConfig,
}

#[derive(Serialize)]
struct Image {
    url: String,
}

/// The load balancer exists: the chart makes none.
#[derive(Serialize)]
struct Alb {
    enabled: bool,
    hosts: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PluginConfig {
    load_balancers: Vec<LoadBalancer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_keys: Option<PublicKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logout: Option<Logout>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancer {
    arn: String,
    issuer: String,
    client_id: String,
}

#[derive(Serialize)]
struct PublicKeys {
    endpoint: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Logout {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_cookie: Option<String>,
}

impl Init {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let text = if !self.files.is_empty() {
            let snapshot = Snapshot::read(&self.files)?;
            let entrances = self.selected(&snapshot)?;
            let mut hosts = self.hosts.clone();
            if hosts.is_empty() {
                hosts = hosts_of(&snapshot, &entrances);
            }
            self.values(&entrances, hosts, sign_out_path(&snapshot))?
        } else if self.has_flags() {
            self.values(&[self.entrance_of_flags()?], self.hosts.clone(), None)?
        } else {
            format!(
                "{COMMANDS}alb-oidc init load-balancers.json listeners.json rules-*.json > values.yaml\n"
            )
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn has_flags(&self) -> bool {
        [
            &self.arn,
            &self.issuer,
            &self.client_id,
            &self.session_cookie,
            &self.cognito_host,
            &self.sign_out_url,
            &self.key_server,
        ]
        .iter()
        .any(|flag| flag.is_some())
            || !self.hosts.is_empty()
            || !self.image.is_empty()
    }

    fn entrance_of_flags(&self) -> Result<Entrance, Trouble> {
        let given = |flag: &Option<String>, name: &str| {
            flag.clone().ok_or_else(|| {
                Trouble(format!(
                    "{name}: found nothing, expected it, or the AWS CLI's output: alb-oidc init"
                ))
            })
        };
        Ok(Entrance {
            arn: given(&self.arn, "--arn")?,
            sign_in: SignIn {
                issuer: given(&self.issuer, "--issuer")?,
                client_id: given(&self.client_id, "--client-id")?,
                cookie: DEFAULT_COOKIE.to_owned(),
                scope: String::new(),
                session_timeout: DEFAULT_TIMEOUT,
                on_unauthenticated: String::new(),
                cognito_host: None,
            },
        })
    }

    /// The entrances that the flags select: at one load balancer, of one issuer.
    fn selected(&self, snapshot: &Snapshot) -> Result<Vec<Entrance>, Trouble> {
        let is =
            |flag: &Option<String>, value: &str| flag.as_ref().is_none_or(|flag| flag == value);
        let entrances: Vec<_> = entrances(snapshot)
            .into_iter()
            .filter(|entrance| {
                is(&self.arn, &entrance.arn)
                    && is(&self.issuer, &entrance.sign_in.issuer)
                    && is(&self.client_id, &entrance.sign_in.client_id)
            })
            .collect();
        if entrances.is_empty() {
            return Err(Trouble(format!(
                "{}: found no rule with authenticate-cognito or authenticate-oidc that the flags select, expected the output of describe-listeners and describe-rules",
                names(&self.files)
            )));
        }
        type Part = fn(&Entrance) -> &str;
        let distinct: [(&str, Part); 3] = [
            ("--arn", |entrance| &entrance.arn),
            ("--issuer", |entrance| &entrance.sign_in.issuer),
            ("--session-cookie", |entrance| &entrance.sign_in.cookie),
        ];
        for (flag, of) in distinct {
            let found: BTreeSet<_> = entrances.iter().map(of).collect();
            let is_given = flag == "--session-cookie" && self.session_cookie.is_some();
            if found.len() > 1 && !is_given {
                let found = found.into_iter().collect::<Vec<_>>().join(", ");
                return Err(Trouble(format!(
                    "{}: found {found}, expected one of them: give {flag}",
                    names(&self.files)
                )));
            }
        }
        Ok(entrances)
    }

    fn values(
        &self,
        entrances: &[Entrance],
        hosts: Vec<String>,
        sign_out_path: Option<String>,
    ) -> Result<String, Trouble> {
        let mut load_balancers: Vec<LoadBalancer> = Vec::new();
        for Entrance { arn, sign_in } in entrances {
            if !load_balancers
                .iter()
                .any(|other| other.client_id == sign_in.client_id)
            {
                load_balancers.push(LoadBalancer {
                    arn: arn.clone(),
                    issuer: sign_in.issuer.clone(),
                    client_id: sign_in.client_id.clone(),
                });
            }
        }
        let first = entrances.first();
        let cookie = self
            .session_cookie
            .as_deref()
            .or(first.map(|entrance| entrance.sign_in.cookie.as_str()))
            .filter(|cookie| *cookie != DEFAULT_COOKIE);
        let redirect_to = first.and_then(|entrance| self.redirect_to(entrance, &hosts));
        let logout = Logout {
            path: redirect_to
                .is_some()
                .then(|| sign_out_path.unwrap_or_else(|| SIGN_OUT_PATH.to_owned())),
            redirect_to,
            session_cookie: cookie.map(str::to_owned),
        };
        let is_empty = logout.redirect_to.is_none() && logout.session_cookie.is_none();
        let values = Values {
            image: Image {
                url: self.image.clone(),
            },
            alb: (!hosts.is_empty()).then_some(Alb {
                enabled: false,
                hosts,
            }),
            plugin_config: PluginConfig {
                load_balancers,
                public_keys: self
                    .key_server
                    .clone()
                    .map(|endpoint| PublicKeys { endpoint }),
                logout: (!is_empty).then_some(logout),
            },
        };
        validate(&values.plugin_config)?;
        let options = ser_options! { prefer_block_scalars: false };
        let text = serde_saphyr::to_string_with_options(&values, options);
        let text = text.map_err(|error| Trouble(error.to_string()))?;
        let logout = values.plugin_config.logout.as_ref();
        let note = match logout.and_then(|logout| logout.redirect_to.as_ref()) {
            Some(_) => "",
            None => NO_SIGN_OUT,
        };
        Ok(format!("{HEAD}{text}{note}"))
    }

    /// Where sign-out redirects to: the given URL, or Cognito's.
    fn redirect_to(&self, entrance: &Entrance, hosts: &[String]) -> Option<String> {
        if self.sign_out_url.is_some() {
            return self.sign_out_url.clone();
        }
        let sign_in = &entrance.sign_in;
        let domain = self
            .cognito_host
            .as_ref()
            .or(sign_in.cognito_host.as_ref())?;
        let host = hosts.iter().find(|host| !host.contains(['*', '?']))?;
        let query = serde_urlencoded::to_string([
            ("client_id", sign_in.client_id.as_str()),
            ("logout_uri", &format!("https://{host}/")),
        ]);
        Some(format!("https://{domain}/logout?{}", query.ok()?))
    }
}

/// Every authenticating action, each once.
fn entrances(snapshot: &Snapshot) -> Vec<Entrance> {
    let of_listeners = snapshot.listeners.iter().flat_map(|listener| {
        let arn = &listener.value.listener_arn;
        let actions = listener.value.default_actions.iter();
        actions.map(move |action| (arn, action))
    });
    let of_rules = snapshot.rules.iter().flat_map(|rule| {
        let arn = &rule.value.rule_arn;
        rule.value.actions.iter().map(move |action| (arn, action))
    });
    let mut found: Vec<Entrance> = Vec::new();
    for (arn, action) in of_rules.chain(of_listeners) {
        let (Some(arn), Some(sign_in)) = (load_balancer_of(arn), SignIn::of(action)) else {
            continue;
        };
        let is_known = |other: &Entrance| {
            other.arn == arn
                && other.sign_in.issuer == sign_in.issuer
                && other.sign_in.client_id == sign_in.client_id
                && other.sign_in.cookie == sign_in.cookie
        };
        if !found.iter().any(is_known) {
            found.push(Entrance { arn, sign_in });
        }
    }
    found
}

/// The hosts of the rules of these entrances, each once.
fn hosts_of(snapshot: &Snapshot, entrances: &[Entrance]) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for rule in &snapshot.rules {
        let rule = &rule.value;
        let is_of_entrance = rule.actions.iter().filter_map(SignIn::of).any(|sign_in| {
            entrances.iter().any(|entrance| {
                load_balancer_of(&rule.rule_arn).as_deref() == Some(&entrance.arn)
                    && sign_in.client_id == entrance.sign_in.client_id
            })
        });
        for host in rule
            .values("host-header")
            .filter(|_| is_of_entrance)
            .into_iter()
            .flatten()
        {
            // The chart takes a host name, or one below `*.`.
            let is_plain = !host.trim_start_matches("*.").contains(['*', '?']);
            if is_plain && !hosts.iter().any(|other| other == host) {
                hosts.push(host.to_ascii_lowercase());
            }
        }
    }
    hosts
}

/// The only path of the rule that lets requests without a session pass.
fn sign_out_path(snapshot: &Snapshot) -> Option<String> {
    let mut paths = snapshot.rules.iter().filter_map(|rule| {
        let mut sign_ins = rule.value.actions.iter().filter_map(SignIn::of);
        let allows = sign_ins.any(|sign_in| sign_in.on_unauthenticated == "allow");
        let paths = rule.value.values("path-pattern").filter(|_| allows)?;
        match paths.as_slice() {
            [path] if !path.contains(['*', '?']) => Some((*path).to_owned()),
            _ => None,
        }
    });
    paths.next().filter(|_| paths.next().is_none())
}

/// The mistakes that the library finds in `config`, as one error.
fn validate(config: &PluginConfig) -> Result<(), Trouble> {
    let value = serde_json::to_value(config).map_err(|error| Trouble(error.to_string()))?;
    Config::from_value(&value).map(drop).map_err(|mistakes| {
        let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        Trouble(lines.join("\n"))
    })
}

fn names(files: &[PathBuf]) -> String {
    let names: Vec<_> = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}

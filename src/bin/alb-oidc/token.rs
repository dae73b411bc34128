//! `alb-oidc token`: mints a token in the load balancer's format, for tests, and writes the public
//! key to a file. A gateway accepts the token only if its `publicKeys.endpoint` serves that key.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alb_oidc_filter::KeyId;
use clap::Args;
use serde_json::{Map, Value};

use crate::clock;
use crate::input::{Trouble, read_config, read_text};
use crate::mint::{AlbKey, AlbToken};
use crate::output::{print, printable, remark};

const EXAMPLES: &str = r#"Example:
  alb-oidc token --key alb-key.pem --keys keys --config wasm-plugin.yaml \
      --claim email=ann@example.com > token.txt"#;

/// Mint a token in the load balancer's format, for tests
///
/// Prints the value of x-amzn-oidc-data. Signer, issuer and client default to those of the config's
/// first load balancer.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Token {
    /// The private key (PKCS#8 PEM, P-256). Generated if the file does not exist
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Take signer, issuer and client from this plugin config
    #[arg(long)]
    config: Option<PathBuf>,
    /// The load balancer's ARN. With --config, it selects one of the config's load balancers
    #[arg(long, value_name = "ARN", required_unless_present = "config")]
    signer: Option<String>,
    /// The `iss` of header and claims
    #[arg(long, required_unless_present = "config")]
    issuer: Option<String>,
    /// The `client` of the header
    #[arg(long, required_unless_present = "config")]
    client: Option<String>,
    /// A claim (repeatable). A value that is not valid JSON is a string
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// The key id, a UUID [default: derived from the key]
    #[arg(long, value_parser = key_id)]
    kid: Option<KeyId>,
    /// Seconds until the token expires. Negative: the token has already expired
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 120,
        allow_negative_numbers = true
    )]
    expires_in: i64,
    /// Write base64 without padding. A load balancer always pads
    #[arg(long)]
    unpadded: bool,
    /// Write the public key to this directory, in a file named after the key id
    #[arg(long, value_name = "DIRECTORY")]
    keys: Option<PathBuf>,
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("expected NAME=VALUE")?;
    Ok((
        name.to_owned(),
        serde_json::from_str(value).unwrap_or_else(|_| value.into()),
    ))
}

fn key_id(text: &str) -> Result<KeyId, &'static str> {
    KeyId::uuid(text.as_bytes()).ok_or("expected a UUID")
}

impl Token {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let (signer, issuer, client) = self.load_balancer()?;
        let key = key(&self.key)?;
        let kid = self
            .kid
            .map_or_else(|| key.id().to_string(), |kid| kid.to_string());
        if let Some(directory) = &self.keys {
            let pem = key
                .public_pem()
                .map_err(|error| Trouble(error.to_string()))?;
            let path = directory.join(&kid);
            std::fs::create_dir_all(directory)
                .and_then(|()| std::fs::write(&path, pem))
                .map_err(|error| Trouble(format!("{}: {error}", path.display())))?;
        }
        let expires = clock::seconds()?.saturating_add_signed(self.expires_in);
        let claims: Map<String, Value> = self.claims.into_iter().collect();
        let token = AlbToken {
            kid,
            signer,
            issuer,
            client,
            expires,
            claims,
            padded: !self.unpadded,
        };
        let text = token
            .mint(&key)
            .map_err(|error| Trouble(error.to_string()))?;
        print(&format!("{text}\n"))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Signer, issuer and client.
    fn load_balancer(&self) -> Result<(String, String, String), Trouble> {
        let given = |option: &Option<String>| option.clone();
        let Some(path) = &self.config else {
            let given = |option| given(option).unwrap_or_default();
            return Ok((
                given(&self.signer),
                given(&self.issuer),
                given(&self.client),
            ));
        };
        let (_, config) = read_config(path)?;
        let is_selected = |arn: &str| self.signer.as_ref().is_none_or(|signer| signer == arn);
        let Some(known) = config
            .load_balancers
            .into_iter()
            .find(|known| is_selected(&known.arn))
        else {
            let signer = self.signer.as_deref().unwrap_or_default();
            return Err(Trouble(format!(
                "--signer: found {signer}, expected one of the load balancers in {}",
                path.display()
            )));
        };
        // For null, the config accepts any value: use one that no load balancer has.
        let issuer = given(&self.issuer)
            .or(known.issuer)
            .unwrap_or_else(|| "https://issuer.invalid".to_owned());
        let client = given(&self.client)
            .or(known.client_id)
            .unwrap_or_else(|| "any-client".to_owned());
        Ok((known.arn, issuer, client))
    }
}

/// The private key in the file `path`. Generated if there is no such file.
fn key(path: &Path) -> Result<AlbKey, Trouble> {
    let trouble = |error: &dyn std::fmt::Display| Trouble(format!("{}: {error}", path.display()));
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Ok(mut file) => {
            let key = AlbKey::generate();
            let pem = key.private_pem().map_err(|error| trouble(&error))?;
            file.write_all(pem.as_bytes())
                .map_err(|error| trouble(&error))?;
            remark(&printable(&format!("generated a key: {}", path.display())));
            Ok(key)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let (_, pem) = read_text(path)?;
            let expected =
                "found no private key, expected one PEM `PRIVATE KEY` (PKCS#8) of the curve P-256";
            AlbKey::from_pem(&pem).map_err(|_| trouble(&expected))
        }
        Err(error) => Err(trouble(&error)),
    }
}

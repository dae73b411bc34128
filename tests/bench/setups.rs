//! The setups that `make bench` compares, and their tokens. Measures nothing.

use super::{peers, staircase};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter;
use std::path::{Path, PathBuf};
use support::envoy::{Plugin, any, gateway_config, http_listener, interlock, wasm_filter};
use support::token::{ISSUER, Key, TokenSpec};

/// The filter before the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Nothing,
    /// A module of the staircase.
    Step(usize),
    JwtAuthn,
    JwtAuthnWithCache,
    Ours,
    /// Another build of this filter.
    OtherBuild,
    /// Signatures are verified in the module.
    OursAlone,
    Lua,
    /// With the session cookie of oauth2-proxy.
    Oauth2ProxyCookie,
    /// With an ID token as a bearer token, which oauth2-proxy verifies.
    Oauth2ProxyBearer,
}

/// The kind of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// None of them is cached.
    New,
    Thousand,
}

/// What is measured with the smaller tokens.
pub(crate) const CASES: [(Filter, Tokens); 11] = [
    (Filter::Nothing, Tokens::New),
    (Filter::JwtAuthn, Tokens::New),
    (Filter::Ours, Tokens::New),
    (Filter::OursAlone, Tokens::New),
    (Filter::Lua, Tokens::New),
    (Filter::Nothing, Tokens::Thousand),
    (Filter::JwtAuthnWithCache, Tokens::Thousand),
    (Filter::Ours, Tokens::Thousand),
    (Filter::Lua, Tokens::Thousand),
    (Filter::Oauth2ProxyCookie, Tokens::Thousand),
    (Filter::Oauth2ProxyBearer, Tokens::Thousand),
];

/// What is measured with the larger ones.
pub(crate) const LARGE: [(Filter, Tokens); 7] = [
    (Filter::Nothing, Tokens::New),
    (Filter::JwtAuthn, Tokens::New),
    (Filter::Ours, Tokens::New),
    (Filter::OursAlone, Tokens::New),
    (Filter::Nothing, Tokens::Thousand),
    (Filter::JwtAuthnWithCache, Tokens::Thousand),
    (Filter::Ours, Tokens::Thousand),
];

/// The modules other than the filter.
pub(crate) struct Modules {
    steps: Vec<PathBuf>,
    /// `BENCH_OTHER`: another build of the filter.
    pub(crate) other: Option<PathBuf>,
}

impl Modules {
    /// Assembles them in `folder`.
    pub(crate) fn assemble(folder: &Path) -> Modules {
        Modules {
            steps: staircase::assemble(folder),
            other: std::env::var_os("BENCH_OTHER").map(PathBuf::from),
        }
    }
}

impl Tokens {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tokens::New => "new tokens",
            Tokens::Thousand => "1,000 tokens repeated",
        }
    }

    pub(crate) fn count(self) -> usize {
        match self {
            Tokens::New => super::NEW,
            Tokens::Thousand => 1000,
        }
    }
}

impl Filter {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Filter::Nothing => "no filter",
            Filter::Step(step) => staircase::name(step),
            Filter::JwtAuthn => "jwt_authn",
            Filter::JwtAuthnWithCache => "jwt_authn with cache",
            Filter::Ours => "this filter",
            Filter::OtherBuild => "the other build",
            Filter::OursAlone => "this filter, module verifies",
            Filter::Lua => "Lua, decodes only",
            Filter::Oauth2ProxyCookie => "oauth2-proxy, cookie",
            Filter::Oauth2ProxyBearer => "oauth2-proxy, bearer token",
        }
    }

    /// The request header that the filter reads.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Filter::Oauth2ProxyCookie => "cookie",
            Filter::Oauth2ProxyBearer => "authorization",
            _ => "x-amzn-oidc-data",
        }
    }

    /// Whether oauth2-proxy takes part in each request.
    pub(crate) fn is_oauth2_proxy(self) -> bool {
        matches!(self, Filter::Oauth2ProxyCookie | Filter::Oauth2ProxyBearer)
    }

    /// A listener with this name, and the filter before `action`.
    pub(crate) fn listener(
        self,
        name: &str,
        action: &Value,
        kid: &str,
        key: &Key,
        modules: &Modules,
    ) -> Value {
        let plugin = |env: BTreeMap<String, String>, module: Option<PathBuf>| {
            let mut config = gateway_config();
            // Requests must wait for a key server that is slow on purpose.
            config["publicKeys"]["timeoutMs"] = json!(10_000);
            let mut plugin = Plugin::new(name, config);
            plugin.env = env;
            if let Some(module) = module {
                plugin.module = module;
            }
            // With the interlock, as it is installed.
            let filter = wasm_filter(&plugin);
            vec![filter, interlock(&["admitted", "skipped"])]
        };
        let filters = match self {
            Filter::Nothing => vec![],
            Filter::Step(step) => {
                let module = wasm_filter(&staircase::plugin(name, step, &modules.steps));
                iter::once(module)
                    .chain(staircase::filter_behind(step))
                    .collect()
            }
            Filter::JwtAuthn => vec![jwt_authn(kid, key, None)],
            Filter::JwtAuthnWithCache => vec![jwt_authn(kid, key, Some(10_000))],
            Filter::Ours => plugin(BTreeMap::new(), None),
            Filter::OtherBuild => plugin(BTreeMap::new(), modules.other.clone()),
            Filter::OursAlone => {
                let env = ("ALB_OIDC_VERIFIER".to_owned(), "module".to_owned());
                plugin(BTreeMap::from([env]), None)
            }
            Filter::Oauth2ProxyCookie | Filter::Oauth2ProxyBearer => peers::filters(),
            Filter::Lua => {
                let lua =
                    json!({"default_source_code": {"inline_string": include_str!("decode.lua")}});
                vec![
                    json!({"name": "lua", "typed_config": any("envoy.extensions.filters.http.lua.v3.Lua", lua)}),
                ]
            }
        };
        http_listener(name, &filters, action, json!({}))
    }
}

/// Envoy's own filter, with the key in its configuration.
fn jwt_authn(kid: &str, key: &Key, cache: Option<u32>) -> Value {
    let point = key.signing_key().verifying_key().to_sec1_point(false);
    let number = |number: Option<_>| {
        URL_SAFE_NO_PAD.encode(
            number
                .map(|bytes: &p256::FieldBytes| bytes.to_vec())
                .unwrap_or_default(),
        )
    };
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": number(point.x()), "y": number(point.y())}]});
    let mut provider = json!({
        "issuer": ISSUER,
        "from_headers": [{"name": "x-amzn-oidc-data"}],
        "local_jwks": {"inline_string": jwks.to_string()},
        "claim_to_headers": [{"header_name": "kubeflow-userid", "claim_name": "email"}],
    });
    if let Some(tokens) = cache {
        // Its default limit of a token's size is 4096.
        provider["jwt_cache_config"] =
            json!({"jwt_cache_size": tokens, "jwt_max_token_size": 8192});
    }
    let config = json!({
        "providers": {"alb": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "alb"}}],
    });
    json!({"name": "jwt_authn", "typed_config": any("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", config)})
}

/// Writes `count` tokens of about `size` bytes, one a line, each of a different user and valid for
/// hours.
pub(crate) fn write_tokens(file: &Path, count: usize, size: usize, kid: &str, key: &Key) {
    let mut text = String::new();
    let mut spec = TokenSpec {
        exp: 6 * 3600,
        payload_exp: 6 * 3600,
        ..TokenSpec::default()
    };
    let bare = spec.mint(kid, key).text.len();
    spec.payload.insert(
        "profile".to_owned(),
        "x".repeat(size.saturating_sub(bare + 32) * 3 / 4).into(),
    );
    for user in 0..count {
        spec.payload.insert(
            "email".to_owned(),
            format!("user-{user:06}@example.com").into(),
        );
        writeln!(text, "{}", spec.mint(kid, key).text).expect("a string");
    }
    std::fs::write(file, text).expect("the tokens");
}

//! The proxy-wasm side: reads the request's head, and carries out the decision of [`crate::gate`].
//! [`plugin`] fetches keys for the [`crate::keys`] cache. Decides nothing.
//!
//! The root context fetches keys, in `on_tick`. The SDK delivers the response to the context that
//! made the call, and the context of a request may end earlier. The response resumes every request
//! that waits for the key.

// Without this feature, another module uses only the verifier.
#![cfg_attr(not(feature = "module"), allow(dead_code))]

mod host;
mod host_signature;
mod log_line;
mod metrics;
mod plugin;
mod reply;
mod woken;

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use crate::config::Config;
use crate::headers::RequestHead;
use crate::reason::Reason;
use host::Level;
pub use host_signature::{Backend, host_verdict};
pub use metrics::{FetchOutcome, METRIC_PREFIX};
use plugin::{Next, Plugin};

/// The toolchain that built the module, for the start-up log line; `.ci/wasm-cargo` names it.
const TOOLCHAIN: &str = match option_env!("ALB_OIDC_TOOLCHAIN") {
    Some(toolchain) => toolchain,
    None => "an unknown toolchain",
};

#[cfg(feature = "module")]
mod entry {
    #![allow(missing_docs)] // of the function that the macro makes

    use super::{Level, Root, host};

    proxy_wasm::main! {{
        std::panic::set_hook(Box::new(|panic| host::log(Level::Critical, &format!("alb-oidc: {panic}"))));
        proxy_wasm::set_root_context(|id| Box::new(Root { id, plugin: None }));
    }}
}

/// One plugin config in one worker.
struct Root {
    id: u32,
    plugin: PluginCell,
}

impl Root {
    fn configure(&mut self, size: usize) -> Result<(), Vec<String>> {
        let text = host::plugin_configuration(size)
            .map_err(|error| vec![format!("cannot read pluginConfig: {error}")])?;
        let config = Config::parse(&text)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let backend = Backend::choose();
        if config.reads_access_tokens() && !backend.verifies_rsa() {
            return Err(vec![
                "accessToken: found in a VM that cannot verify RS256, expected Envoy 1.31 or later with its function \
                 verify_signature, not ruled out by ALB_OIDC_VERIFIER; or no accessToken"
                    .to_owned(),
            ]);
        }
        let seed =
            host::random().map_err(|error| vec![format!("cannot get a random number: {error}")])?;
        let plugin = Plugin::new(self.id, config, backend, seed)
            .map_err(|error| vec![format!("cannot define metrics: {error}")])?;
        let (version, toolchain, verifier) = (env!("CARGO_PKG_VERSION"), TOOLCHAIN, backend.name());
        host::log(
            Level::Info,
            &format!(
                "alb-oidc: version {version}, built with {toolchain}, signatures verified by the {verifier}"
            ),
        );
        self.plugin = Some(Rc::new(RefCell::new(plugin)));
        Ok(())
    }
}

/// One plugin config in one worker, as the root context and its requests share it.
type PluginCell = Option<Rc<RefCell<Plugin>>>;

/// The result of `act` on the plugin. `None` without a valid config, or if the host enters the VM
/// within one of its own calls, which no Envoy does. Then nothing can be counted, because the
/// counters are the plugin's.
fn with<T>(plugin: &PluginCell, act: impl FnOnce(&mut Plugin) -> T) -> Option<T> {
    Some(act(&mut *plugin.as_ref()?.try_borrow_mut().ok()?))
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        call: u32,
        headers: usize,
        body_size: usize,
        _trailers: usize,
    ) {
        with(&self.plugin, |plugin| {
            plugin.on_answer(call, headers, body_size)
        });
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        match self.configure(size) {
            Ok(()) => true,
            Err(mistakes) => {
                for mistake in mistakes {
                    host::log(
                        Level::Error,
                        &format!("alb-oidc: config rejected: {mistake}"),
                    );
                }
                false
            }
        }
    }

    fn on_tick(&mut self) {
        with(&self.plugin, Plugin::on_tick);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request {
            id,
            plugin: self.plugin.clone(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request.
struct Request {
    id: u32,
    plugin: PluginCell,
}

impl Context for Request {}

/// The SDK drops it as soon as the host says that the request is over.
impl Drop for Request {
    fn drop(&mut self) {
        with(&self.plugin, |plugin| plugin.on_gone(self.id));
    }
}

impl Request {
    fn act(&self, act: impl FnOnce(&mut Plugin) -> Next) -> Action {
        let next = with(&self.plugin, act).unwrap_or_else(|| {
            let head = RequestHead::default();
            plugin::send_denial(&head, Reason::InternalError, None, None);
            Next::Answered
        });
        match next {
            Next::Continue => Action::Continue,
            Next::Wait | Next::Answered => Action::Pause,
        }
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.act(|plugin| plugin.on_request(self.id))
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.act(Plugin::on_trailers)
    }
}

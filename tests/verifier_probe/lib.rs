//! Verifies the signatures in its plugin config once with both verifiers, and logs verdicts and
//! times. Not part of the filter.
//!
//! Config: `{"vectors": [{"spki": HEX, "message": HEX, "signature": HEX}], "rounds": N}`. Logs one
//! line `probe: {"host": VERDICTS, "module": VERDICTS, "hostNanos": N, "moduleNanos": N}`. VERDICTS
//! has a `1` for each valid signature, a `0` for each invalid one and a `?` if the host has no
//! verdict. The times are for verifying the first vector `rounds` times.

use alb_oidc_filter::{P256, VerifySignature, host_verdict};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext};
use proxy_wasm::types::{BufferType, LogLevel};
use serde_json::{Value, json};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Probe));
}}

struct Probe;

impl Context for Probe {}

impl RootContext for Probe {
    fn on_configure(&mut self, size: usize) -> bool {
        let config = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size)
            .unwrap()
            .unwrap();
        let line = format!(
            "probe: {}",
            report(&serde_json::from_slice(&config).unwrap())
        );
        hostcalls::log(LogLevel::Info, &line).unwrap();
        true
    }
}

struct Vector {
    spki: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

fn report(config: &Value) -> Value {
    let field = |vector: &Value, name: &str| hex(vector[name].as_str().unwrap());
    let vectors: Vec<_> = config["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vector| Vector {
            spki: field(vector, "spki"),
            message: field(vector, "message"),
            signature: field(vector, "signature"),
        })
        .collect();
    let host = |vector: &Vector| host_verdict(&vector.spki, &vector.message, &vector.signature);
    let module = |vector: &Vector| {
        Some(P256::verify_es256(
            &vector.spki,
            &vector.message,
            &vector.signature,
        ))
    };
    let rounds = config["rounds"].as_u64().unwrap();
    json!({
        "host": verdicts(&vectors, host),
        "module": verdicts(&vectors, module),
        "hostNanos": nanos(rounds, || host(&vectors[0])),
        "moduleNanos": nanos(rounds, || module(&vectors[0])),
    })
}

fn verdicts(vectors: &[Vector], verify: impl Fn(&Vector) -> Option<bool>) -> String {
    let letter = |vector| match verify(vector) {
        Some(true) => '1',
        Some(false) => '0',
        None => '?',
    };
    vectors.iter().map(letter).collect()
}

fn nanos(rounds: u64, verify: impl Fn() -> Option<bool>) -> u64 {
    let start = hostcalls::get_current_time().unwrap();
    for _ in 0..rounds {
        std::hint::black_box(verify());
    }
    let end = hostcalls::get_current_time().unwrap();
    end.duration_since(start).unwrap().as_nanos() as u64
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

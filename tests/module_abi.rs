//! Reads the built module as Envoy does: imports, exports, required instructions, size. Does not
//! run it; tests/scenarios.rs does. The lists are those of Envoy 1.31, the oldest supported.

use std::path::PathBuf;

use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{FuncType, ValType, Validator, WasmFeatures};

/// Two toolchains build it, and rustup's prebuilt standard library is larger than a compiled one.
const LARGEST: usize = 640 * 1024;

/// A function's type as `PARAMETERS>RESULTS`: `i` is a 32-bit integer, `l` a 64-bit one.
type Signature = &'static str;

/// The functions that the host provides for ABI 0.2.1 in `env`. A missing import, or one of another
/// type, is a load failure.
const HOST: &[(&str, Signature)] = &[
    ("proxy_add_header_map_value", "iiiii>i"),
    ("proxy_call_foreign_function", "iiiiii>i"),
    ("proxy_close_stream", "i>i"),
    ("proxy_continue_stream", "i>i"),
    ("proxy_define_metric", "iiii>i"),
    ("proxy_dequeue_shared_queue", "iii>i"),
    ("proxy_done", ">i"),
    ("proxy_enqueue_shared_queue", "iii>i"),
    ("proxy_get_buffer_bytes", "iiiii>i"),
    ("proxy_get_buffer_status", "iii>i"),
    ("proxy_get_current_time_nanoseconds", "i>i"),
    ("proxy_get_header_map_pairs", "iii>i"),
    ("proxy_get_header_map_size", "ii>i"),
    ("proxy_get_header_map_value", "iiiii>i"),
    ("proxy_get_log_level", "i>i"),
    ("proxy_get_metric", "ii>i"),
    ("proxy_get_property", "iiii>i"),
    ("proxy_get_shared_data", "iiiii>i"),
    ("proxy_get_status", "iii>i"),
    ("proxy_grpc_call", "iiiiiiiiiiii>i"),
    ("proxy_grpc_cancel", "i>i"),
    ("proxy_grpc_close", "i>i"),
    ("proxy_grpc_send", "iiii>i"),
    ("proxy_grpc_stream", "iiiiiiiii>i"),
    ("proxy_http_call", "iiiiiiiiii>i"),
    ("proxy_increment_metric", "il>i"),
    ("proxy_log", "iii>i"),
    ("proxy_record_metric", "il>i"),
    ("proxy_register_shared_queue", "iii>i"),
    ("proxy_remove_header_map_value", "iii>i"),
    ("proxy_replace_header_map_value", "iiiii>i"),
    ("proxy_resolve_shared_queue", "iiiii>i"),
    ("proxy_send_local_response", "iiiiiiii>i"),
    ("proxy_set_buffer_bytes", "iiiii>i"),
    ("proxy_set_effective_context", "i>i"),
    ("proxy_set_header_map_pairs", "iii>i"),
    ("proxy_set_property", "iiii>i"),
    ("proxy_set_shared_data", "iiiii>i"),
    ("proxy_set_tick_period_milliseconds", "i>i"),
];

/// The functions that the host provides in `wasi_snapshot_preview1`.
const WASI: &[(&str, Signature)] = &[
    ("args_get", "ii>i"),
    ("args_sizes_get", "ii>i"),
    ("clock_time_get", "ili>i"),
    ("environ_get", "ii>i"),
    ("environ_sizes_get", "ii>i"),
    ("fd_close", "i>i"),
    ("fd_fdstat_get", "ii>i"),
    ("fd_prestat_dir_name", "iii>i"),
    ("fd_prestat_get", "ii>i"),
    ("fd_read", "iiii>i"),
    ("fd_seek", "ilii>i"),
    ("fd_write", "iiii>i"),
    ("path_open", "iiiiillii>i"),
    ("proc_exit", "i>"),
    ("random_get", "ii>i"),
];

/// The required exports, apart from an allocator. The host silently skips an absent callback.
const CALLBACKS: &[(&str, Signature)] = &[
    ("_initialize", ">"),
    ("proxy_abi_version_0_2_1", ">"),
    ("proxy_on_configure", "ii>i"),
    ("proxy_on_context_create", "ii>"),
    ("proxy_on_delete", "i>"),
    ("proxy_on_http_call_response", "iiiii>"),
    ("proxy_on_request_headers", "iii>i"),
    ("proxy_on_request_trailers", "ii>i"),
    ("proxy_on_tick", "i>"),
    ("proxy_on_vm_start", "ii>i"),
];

/// Features that compilers emit for this target by default and V8 has had for years. Not among
/// them: threads, SIMD, exceptions, tail calls, 64-bit memory and garbage collection.
fn accepted_features() -> WasmFeatures {
    WasmFeatures::MVP
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
}

fn signature(of: &FuncType) -> String {
    let letter = |of: &ValType| match of {
        ValType::I32 => 'i',
        ValType::I64 => 'l',
        ValType::F32 => 'f',
        ValType::F64 => 'd',
        ValType::V128 | ValType::Ref(_) => '?',
    };
    let letters = |types: &[ValType]| types.iter().map(letter).collect::<String>();
    format!("{}>{}", letters(of.params()), letters(of.results()))
}

/// A function's signature, or the kind of anything else.
fn kind(types: TypesRef<'_>, of: EntityType) -> String {
    match of {
        EntityType::Func(id) => types
            .get(id)
            .map_or_else(String::new, |of| signature(of.unwrap_func())),
        EntityType::Memory(_) => "memory".to_owned(),
        EntityType::Table(_) => "table".to_owned(),
        EntityType::Global(_) => "global".to_owned(),
        EntityType::Tag(_) | EntityType::FuncExact(_) => "of another kind".to_owned(),
    }
}

/// One line for each reason why Envoy would reject the module or never call it.
fn faults(module: &[u8]) -> Vec<String> {
    let types = match Validator::new_with_features(accepted_features()).validate_all(module) {
        Ok(types) => types,
        Err(error) => return vec![format!("not a module of the accepted features: {error}")],
    };
    let types = types.as_ref();
    let mut faults = Vec::new();

    for (from, name, of) in types.core_imports().into_iter().flatten() {
        let offered = match from {
            "env" => HOST,
            "wasi_snapshot_preview1" => WASI,
            _ => &[],
        };
        let has = kind(types, of);
        match offered.iter().find(|(offer, _)| *offer == name) {
            None => faults.push(format!(
                "imports {from}.{name}, which the host does not offer"
            )),
            Some((_, offer)) if *offer != has => faults.push(format!(
                "imports {from}.{name} as {has}, the host offers {offer}"
            )),
            Some(_) => {}
        }
    }

    let exports: Vec<(&str, String)> = types
        .core_exports()
        .into_iter()
        .flatten()
        .map(|(name, of)| (name, kind(types, of)))
        .collect();
    let exported = |name: &str| {
        exports
            .iter()
            .find(|(export, _)| *export == name)
            .map(|(_, has)| has.as_str())
    };
    for (name, wanted) in CALLBACKS.iter().copied().chain([("memory", "memory")]) {
        match exported(name) {
            None => faults.push(format!("does not export {name}")),
            Some(has) if has != wanted => {
                faults.push(format!("exports {name} as {has}, the host calls {wanted}"))
            }
            Some(_) => {}
        }
    }
    if ["malloc", "proxy_on_memory_allocate"]
        .iter()
        .all(|name| exported(name) != Some("i>i"))
    {
        faults.push(
            "exports no allocator: malloc or proxy_on_memory_allocate, of type i>i".to_owned(),
        );
    }
    for (name, _) in exports
        .iter()
        .filter(|(name, _)| name.starts_with("proxy_on_"))
    {
        let wanted = CALLBACKS.iter().any(|(callback, _)| callback == name)
            || *name == "proxy_on_memory_allocate";
        if !wanted {
            faults.push(format!(
                "exports {name}, for which Envoy would enter the module in vain"
            ));
        }
    }
    faults
}

/// The module that `make` built.
fn built_module() -> Vec<u8> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/alb_oidc_filter.wasm");
    let path =
        std::env::var_os("ALB_OIDC_MODULE").map_or_else(|| PathBuf::from(default), PathBuf::from);
    match std::fs::read(&path) {
        Ok(module) => module,
        #[expect(clippy::panic, reason = "without the module there is nothing to test")]
        Err(error) => panic!("no module at {}: {error}; run make", path.display()),
    }
}

#[test]
fn built_module_fits_the_abi() {
    let faults = faults(&built_module());
    assert!(faults.is_empty(), "the module:\n{}", faults.join("\n"));
}

#[test]
fn built_module_is_small() {
    let size = built_module().len();
    assert!(
        size <= LARGEST,
        "the module has {size} bytes, more than {LARGEST}"
    );
}

#[test]
fn built_module_contains_no_local_paths() {
    let module = built_module();
    // The repository itself may be in `/src`, which ends the paths of other crates too.
    let local = [concat!(env!("CARGO_MANIFEST_DIR"), "/src").to_owned()]
        .into_iter()
        .chain(
            ["HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"]
                .iter()
                .filter_map(|name| std::env::var(name).ok()),
        )
        .filter(|directory| directory.len() > 1);
    for directory in local {
        let directory = format!("{}/", directory.trim_end_matches('/'));
        let at = module
            .windows(directory.len())
            .position(|bytes| bytes == directory.as_bytes());
        assert_eq!(
            at, None,
            "the module holds {directory}, so another directory gives other bytes"
        );
    }
}

/// A module with all exports that the host calls, and these imports and instructions.
fn complete(imports: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {imports} (memory (export "memory") 1)
            (func (export "_initialize")) (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0)
            (func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 1)
            (func (export "proxy_on_context_create") (param i32 i32))
            (func (export "proxy_on_delete") (param i32))
            (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
            (func (export "proxy_on_request_trailers") (param i32 i32) (result i32) i32.const 0)
            (func (export "proxy_on_tick") (param i32) {body})
            (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 1))"#
    );
    wat::parse_str(text).unwrap_or_default()
}

#[test]
fn accepts_a_module_that_fits_the_abi() {
    let imports = r#"(import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))"#;
    assert_eq!(faults(&complete(imports, "")), Vec::<String>::new());
}

#[test]
fn rejects_unknown_imports() {
    for (imports, fault) in [
        (
            r#"(import "env" "proxy_clear_route_cache" (func (result i32)))"#,
            "imports env.proxy_clear_route_cache, which the host does not offer",
        ),
        (
            r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#,
            "imports wasi_snapshot_preview1.sched_yield, which the host does not offer",
        ),
        (
            r#"(import "wbg" "now" (func (result f64)))"#,
            "imports wbg.now, which the host does not offer",
        ),
        (
            r#"(import "env" "proxy_log" (func (param i32 i32) (result i32)))"#,
            "imports env.proxy_log as ii>i, the host offers iii>i",
        ),
    ] {
        assert_eq!(faults(&complete(imports, "")), [fault]);
    }
}

#[test]
fn rejects_absent_and_mistyped_exports() {
    let empty = faults(&wat::parse_str(r#"(module (func (export "proxy_on_tick")))"#).unwrap());
    assert!(
        empty.contains(&"exports proxy_on_tick as >, the host calls i>".to_owned()),
        "{empty:?}"
    );
    assert!(
        empty.contains(&"does not export proxy_on_request_headers".to_owned()),
        "{empty:?}"
    );
    assert!(
        empty.contains(&"does not export memory".to_owned()),
        "{empty:?}"
    );
    assert!(
        empty
            .iter()
            .any(|fault| fault.starts_with("exports no allocator")),
        "{empty:?}"
    );
}

#[test]
fn rejects_unsupported_instructions() {
    for body in [
        "(drop (v128.const i64x2 0 0))",
        "atomic.fence",
        "(return_call 0)",
    ] {
        let found = faults(&complete("", body));
        assert!(
            found
                .iter()
                .any(|fault| fault.starts_with("not a module of the accepted features")),
            "{body}: {found:?}"
        );
    }
}

//! libFuzzer's entry point of the target `paths`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| alb_oidc_fuzz::targets::paths::run(data));

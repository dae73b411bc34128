//! libFuzzer's entry point of the target `claims`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| alb_oidc_fuzz::targets::claims::run(data));

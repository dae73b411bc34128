//! libFuzzer's entry point of the target `cookies`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| alb_oidc_fuzz::targets::cookies::run(data));

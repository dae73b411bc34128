//! libFuzzer's entry point of the target `token`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| alb_oidc_fuzz::targets::token::run(data));

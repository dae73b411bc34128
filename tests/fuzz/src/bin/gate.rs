//! libFuzzer's entry point of the target `gate`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| alb_oidc_fuzz::targets::gate::run(data));

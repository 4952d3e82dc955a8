//! Runs the target `http_requests` under libFuzzer; see `scripts/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meseta_fuzz::run("http_requests", data));

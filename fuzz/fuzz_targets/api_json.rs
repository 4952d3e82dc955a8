//! Runs the target `api_json` under libFuzzer; see `scripts/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meseta_fuzz::run("api_json", data));

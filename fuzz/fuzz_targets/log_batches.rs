//! Runs the target `log_batches` under libFuzzer; see `scripts/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meseta_fuzz::run("log_batches", data));

//! Runs the target `master_messages` under libFuzzer; see `scripts/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meseta_fuzz::run("master_messages", data));

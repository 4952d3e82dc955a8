//! Runs the target `api_protobuf` under libFuzzer; see `scripts/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meseta_fuzz::run("api_protobuf", data));

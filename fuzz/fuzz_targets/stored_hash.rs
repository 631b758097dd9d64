#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::stored_hash(data));

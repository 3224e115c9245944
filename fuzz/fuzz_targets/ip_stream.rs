#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bauta::fuzzing::ip_stream(data));

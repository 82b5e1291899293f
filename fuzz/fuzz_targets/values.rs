//! Arbitrary JSON and text as the values of good keys, as URLs, and as the JSON form of an instance.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_model::fuzzing::values(data));

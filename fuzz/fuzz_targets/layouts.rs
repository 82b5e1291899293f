//! Arbitrary keys and values through `identify` and `decode` of every layout. What is read must be written and read
//! again as the same instance.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_model::fuzzing::layouts(data));

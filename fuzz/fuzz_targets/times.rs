//! Arbitrary values of the headers in which callers and servers say times.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_channel::fuzzing::times(data));

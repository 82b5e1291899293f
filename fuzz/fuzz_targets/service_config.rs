//! Arbitrary text in place of a service config.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_channel::fuzzing::service_config(data));

//! Arbitrary bytes in place of the frames of a server, as the channel follows them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_channel::fuzzing::frames(data));

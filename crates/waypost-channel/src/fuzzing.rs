//! The bodies of the fuzz targets, and what they check: of what servers send, and of what is written for all clients to read.
//!
//! Nothing here is an interface: it is compiled for tests and under the feature `fuzzing`.

#![expect(clippy::panic, reason = "a broken invariant is reported by panicking")]

use crate::deadline::Deadline;
use crate::greeting::words;
use crate::resend::Pushback;
use crate::{Resend, ServiceConfig};
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

/// Arbitrary bytes in place of a server's frames: however they are cut, they say the same.
pub fn frames(data: &[u8]) {
    let whole = words(data, data.len().max(1));
    for portion in [1, 2, 3, 9, 10, 64] {
        assert_eq!(words(data, portion), whole, "in portions of {portion}");
    }
    // It may begin as a server does.
    let greeted = [&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], data].concat();
    assert_eq!(words(&greeted, 1), words(&greeted, greeted.len()));
}

/// Arbitrary text in place of a service config: what is taken is within gRPC's bounds, and what is not has a short reason.
pub fn service_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match text.parse::<ServiceConfig>() {
        Ok(config) => config,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("service config: "), "{text}");
            return;
        }
    };
    if let Some(throttling) = config.retry_throttling {
        assert!((1..=1000).contains(&throttling.max_tokens), "{throttling:?}");
        assert!((1..=1_000_000).contains(&throttling.token_ratio_thousandths), "{throttling:?}");
    }
    for path in ["/", "", "/a/b", "/a.B/C", "a", "//"] {
        let attempts = match config.method(path).and_then(|method| method.resend.as_ref()) {
            None => continue,
            Some(Resend::Retry(rule)) => {
                assert!(!rule.codes.is_empty() && !rule.initial_backoff.is_zero(), "{rule:?}");
                rule.max_attempts
            }
            Some(Resend::Hedge(rule)) => rule.max_attempts,
        };
        assert!((2..=5).contains(&attempts), "{attempts}");
    }
}

/// Arbitrary values of the headers that callers and servers say times in. What is written for the server is read as no more.
pub fn times(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", value.clone());
    headers.insert("grpc-retry-pushback-ms", value);
    let _ = Pushback::of(&headers);
    let now = Instant::now();
    let asked = Deadline::of(&headers, None, now);
    let mut written = HeaderMap::new();
    asked.write(&mut written, || now);
    let Some(deadline) = asked.0 else {
        assert!(written.is_empty(), "{written:?}");
        return;
    };
    match Deadline::of(&written, None, now).0 {
        Some(read) => assert!(read <= deadline, "{written:?}"),
        // A finding: `Deadline::write` has written what `Deadline::of` does not read. No program that calls has this code.
        None => panic!("{written:?} is not read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_comes(data in prop::collection::vec(any::<u8>(), 0..200), text in any::<String>(), time in "[0-9]{0,9}[HMSmun]?") {
            frames(&data);
            service_config(text.as_bytes());
            times(&data);
            times(time.as_bytes());
        }

        #[test]
        fn whatever_is_nearly_a_config(
            name in "[a-z.A-Z/]{0,5}", attempts in any::<i8>(), backoff in "[0-9]{0,2}.?[0-9]{0,2}s", ratio in any::<f64>(),
        ) {
            let text = format!(
                r#"{{"methodConfig": [{{"name": [{{"service": "{name}"}}, {{}}], "timeout": "{backoff}", "retryPolicy": {{
                    "maxAttempts": {attempts}, "initialBackoff": "{backoff}", "maxBackoff": "1s", "backoffMultiplier": 2,
                    "retryableStatusCodes": [14]}}}}], "retryThrottling": {{"maxTokens": {attempts}, "tokenRatio": {ratio:e}}}}}"#
            );
            service_config(text.as_bytes());
        }
    }
}

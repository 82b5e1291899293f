//! The time until which a call may take: gRPC's `grpc-timeout` header.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// When a call ends, if it must. Spans all its attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Option<Instant>);

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

// === impl Deadline ===

impl Deadline {
    /// The earlier of what the request asks for and what the channel allows, counted from `now`.
    pub(crate) fn of(headers: &HeaderMap, channel: Option<Duration>, now: Instant) -> Self {
        let asked = headers.get(GRPC_TIMEOUT).and_then(|value| parse(value.as_bytes()));
        let timeout = [asked, channel].into_iter().flatten().min();
        Self(timeout.and_then(|timeout| now.checked_add(timeout)))
    }

    /// Tells the server what is left.
    pub(crate) fn write(self, headers: &mut HeaderMap, now: impl FnOnce() -> Instant) {
        if let Some(deadline) = self.0 {
            headers.insert(GRPC_TIMEOUT, format(deadline.saturating_duration_since(now())));
        }
    }

    /// What `future` answers, or that the deadline has passed before it did.
    pub(crate) async fn limit<F: Future>(self, future: F) -> Result<F::Output, Passed> {
        match self.0 {
            Some(deadline) => Box::pin(timeout_at(deadline, future)).await.map_err(|_| Passed),
            None => Ok(future.await),
        }
    }
}

/// One to eight digits and a unit.
fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// In the finest unit that eight digits can hold.
fn format(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let (number, unit) = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (u128::from(timeout.as_secs()), 'S'),
        (u128::from(timeout.as_secs()) / 60, 'M'),
    ]
    .into_iter()
    .find(|(number, _)| *number <= MOST)
    .unwrap_or(((u128::from(timeout.as_secs()) / 3600).min(MOST), 'H'));
    // Digits and a letter are a header value.
    HeaderValue::try_from(format!("{number}{unit}")).unwrap_or(HeaderValue::from_static("99999999H"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_timeout_is_ignored() {
        for bad in ["", "1", "S", "123456789S", "-1S", "1 S", "1s", "٣S"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"0n"), Some(Duration::ZERO));
        assert_eq!(parse(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse(b"250m"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn the_earlier_of_two_counts() {
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        let after = |headers: &HeaderMap, channel| Deadline::of(headers, channel, now).0.map(|at| at - now);
        let second = Duration::from_secs(1);
        assert_eq!(after(&headers, None), None);
        assert_eq!(after(&headers, Some(second)), Some(second));
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("2S"));
        assert_eq!(after(&headers, Some(second)), Some(second));
        assert_eq!(after(&headers, None), Some(second * 2));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_never_longer(seconds in any::<u64>(), nanos in 0_u32..1_000_000_000) {
            let timeout = Duration::new(seconds, nanos);
            let read = parse(format(timeout).as_bytes()).unwrap();
            prop_assert!(read <= timeout);
            prop_assert!(read >= timeout.min(Duration::from_secs(99_999_999 * 3600)) * 9 / 10);
        }
    }
}

//! Spans of calls and attempts. Alone in its file: `tracing` decides once for each place in the code whether anybody listens there, and a
//! test beside this one, on a thread without a listener, may be the one that it asks.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

#[path = "channel/support/mod.rs"]
mod support;

use std::io;
use std::sync::{Arc, Mutex};
use support::answers::{self, handler};
use support::{Fleet, Server, builder, check_idempotent, ready};
use tonic::Code;
use tracing_subscriber::fmt::format::FmtSpan;

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn there_is_a_span_for_each_call_and_one_for_each_attempt() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let bad = Server::start(handler(|_, _| async { answers::in_headers(Code::Unavailable) })).await;
    let (_fleet, subscription) = Fleet::of(&[&bad]);
    let retry = waypost_channel::RetryPolicy::default().with_max_attempts(2);
    let channel = builder(subscription).retry(retry).build();
    ready(&channel, 1).await;
    check_idempotent(&channel).await.unwrap_err();
    let text = log.text();
    let (call, at) = (r#"call{service="greeter" path="/grpc.health.v1.Health/Check""#, bad.endpoint());
    for attempt in 1..=2 {
        let span = format!(r#"attempt{{endpoint={at} attempt={attempt} outcome="UNAVAILABLE"}}"#);
        let line = text.lines().find(|line| line.contains(&span) && line.contains("close"));
        assert!(line.is_some_and(|line| line.contains(call)), "{span} in\n{text}");
    }
    assert!(text.contains(&format!(r#"{call} code="UNAVAILABLE"}}"#)), "{text}");
}

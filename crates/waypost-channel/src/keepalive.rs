//! Pings that find a server which no longer answers. They have a task of their own, so that what drives a connection has no timer
//! to look at with each frame.

use crate::settings::Keepalive;
use crate::table::Pace;
use crate::traffic::Traffic;
use h2::{Ping, PingPong};
use std::future::pending;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Pings over a connection as `rule` says, at the channel's `pace`. Ends when a ping was not answered in time, and says how long that is.
pub(crate) async fn watch(mut pings: PingPong, rule: Keepalive, traffic: &Traffic, pace: &Pace) -> Duration {
    loop {
        // An interval without end needs no pings. Another connection's server may have complained since the last look.
        let interval = pace.stretch(rule.interval);
        let Some(due) = traffic.heard().checked_add(interval) else { return pending().await };
        if due > Instant::now() {
            sleep_until(due).await;
            continue;
        }
        if !rule.while_idle {
            traffic.busy().await;
        }
        let asked = Instant::now();
        let mut answer = pin!(pings.ping(Ping::opaque()));
        loop {
            // Whatever comes is a sign of life: a busy line delays the answer.
            let Some(due) = traffic.heard().max(asked).checked_add(rule.timeout) else {
                return pending().await;
            };
            if due <= Instant::now() {
                return rule.timeout;
            }
            match timeout_at(due, &mut answer).await {
                // The answer was heard.
                Ok(Ok(_)) => break,
                // The connection has ended: what drives it tells why.
                Ok(Err(_)) => return pending().await,
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::InFlight;
    use std::sync::Arc;
    use tokio::time::timeout;

    const RULE: fn() -> Keepalive = || Keepalive::new(Duration::from_secs(20), Duration::from_secs(5));

    /// When the server is given up that answers no ping, in seconds; `None` if it is not within the hour.
    async fn given_up(
        rule: Keepalive,
        story: impl AsyncFnOnce(&Arc<Traffic>) -> Option<InFlight>,
    ) -> Option<u64> {
        given_up_at(Arc::default(), rule, story).await
    }

    async fn given_up_at(
        pace: Arc<Pace>,
        rule: Keepalive,
        story: impl AsyncFnOnce(&Arc<Traffic>) -> Option<InFlight>,
    ) -> Option<u64> {
        let (io, _server) = tokio::io::duplex(1024);
        let (_sender, mut connection) = h2::client::handshake(io).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        let (traffic, began) = (Arc::new(Traffic::new()), Instant::now());
        let watched = tokio::spawn({
            let traffic = Arc::clone(&traffic);
            async move { watch(pings, rule, &traffic, &pace).await }
        });
        let _call = story(&traffic).await;
        let waited = timeout(Duration::from_secs(3600), watched).await.ok()?;
        assert_eq!(waited.unwrap(), rule.timeout);
        Some(began.elapsed().as_secs())
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_comes_after_an_interval_of_silence() {
        let called = given_up(RULE(), async |traffic| traffic.try_enter());
        assert_eq!(called.await, Some(25));
        let heard = given_up(RULE(), async |traffic| {
            let call = traffic.try_enter();
            pass(15).await;
            traffic.hear();
            call
        });
        assert_eq!(heard.await, Some(40));
    }

    /// It answers late, behind what it had to send before.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_is_alive_though_it_has_not_answered() {
        let sends = given_up(RULE(), async |traffic| {
            let call = traffic.try_enter();
            pass(20).await;
            for _ in 0..5 {
                pass(4).await;
                traffic.hear();
            }
            call
        });
        assert_eq!(sends.await, Some(45));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_call_there_is_a_ping_only_if_it_is_asked_for() {
        assert_eq!(given_up(RULE(), async |_| None).await, None);
        assert_eq!(given_up(RULE().while_idle(true), async |_| None).await, Some(25));
        let over = given_up(RULE(), async |traffic| {
            let call = traffic.try_enter();
            pass(15).await;
            drop(call);
            None
        });
        assert_eq!(over.await, None);
    }

    /// The complaint may have come over another connection, and while this one was silent.
    #[tokio::test(start_paused = true)]
    async fn a_complaint_counts_for_connections_that_there_are() {
        let pace = Arc::<Pace>::default();
        let slowed = given_up_at(Arc::clone(&pace), RULE(), async |traffic| {
            let call = traffic.try_enter();
            pass(10).await;
            pace.slow_down();
            traffic.hear();
            call
        });
        assert_eq!(slowed.await, Some(10 + 40 + 5));
    }

    /// It may have been away for long.
    #[tokio::test(start_paused = true)]
    async fn the_first_call_after_a_long_silence_comes_with_a_ping() {
        let late = given_up(RULE(), async |traffic| {
            pass(1000).await;
            traffic.try_enter()
        });
        assert_eq!(late.await, Some(1005));
    }
}

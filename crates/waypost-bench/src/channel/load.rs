//! Unary calls as fast as they go, from so many callers at once.

use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost_bench::own_cpu_micros;

/// Callers at once, in each program.
pub(crate) const CALLERS: usize = 32;

/// What a stretch of calls came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) failures: usize,
    /// CPU of the calling process for a call, if it is this one, in microseconds.
    pub(crate) cpu_micros: Option<f64>,
}

type StdError = Box<dyn std::error::Error + Send + Sync>;

/// Calls for so long. Each caller makes its next call when it has the answer to its last.
pub(crate) async fn run<S>(client: &HealthClient<S>, time: Duration) -> Load
where
    S: GrpcService<Body> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<StdError>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let (began, cpu) = (Instant::now(), own_cpu_micros());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut client = client.clone();
        callers.spawn(async move {
            let (mut times, mut failures) = (Vec::with_capacity(1 << 14), 0);
            while began.elapsed() < time {
                let sent = Instant::now();
                match client.check(HealthCheckRequest::default()).await {
                    Ok(_) => times.push(sent.elapsed()),
                    Err(_) => failures += 1,
                }
            }
            (times, failures)
        });
    }
    let (mut times, mut failures) = (Vec::new(), 0);
    while let Some(caller) = callers.join_next().await {
        let (more, failed) = caller.expect("a caller");
        times.extend(more);
        failures += failed;
    }
    let cpu_micros = Some((own_cpu_micros() - cpu) as f64 / times.len().max(1) as f64);
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    let quantile = |q: f64| times.get((times.len() as f64 * q) as usize).copied().unwrap_or_default();
    Load { per_second, p50: quantile(0.5), p99: quantile(0.99), failures, cpu_micros }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}/s, p50 {:.0?}, p99 {:.0?}", self.per_second, self.p50, self.p99)?;
        if let Some(micros) = self.cpu_micros {
            write!(f, ", CPU {micros:.1} µs")?;
        }
        if self.failures > 0 { write!(f, ", {} failed", self.failures) } else { Ok(()) }
    }
}

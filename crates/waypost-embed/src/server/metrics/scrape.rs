//! The text of `/metrics`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::calls::Method;
use super::process::Process;
use super::{Tallies, classic};
use crate::backend::{Backend as _, Size};
use crate::error::Refusal;
use crate::server::engine::{Engine, Shared, lock, read};
use crate::server::{STORAGE_VERSION, VERSION};
use crate::watch::Counts;

/// What the text is. etcd serves no other, whatever is asked for.
pub(in crate::server) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything at one moment.
#[derive(Debug)]
struct Scrape {
    tallies: Arc<Tallies>,
    process: Process,
    size: Size,
    watches: Counts,
    member: u64,
    keys: u64,
    leases: u64,
    revision: i64,
    compacted: i64,
    auth_revision: u64,
    alarms: u64,
    quota: u64,
    written: u64,
    waiting: u64,
}

/// The text, as it is now.
pub(in crate::server) async fn scrape(engine: &Engine) -> Result<String, Refusal> {
    engine
        .blocking(|shared| {
            let scrape = Scrape::take(shared)?;
            let tallies = Arc::clone(&scrape.tallies);
            let mut registry = Registry::default();
            registry.register(
                "etcd_disk_wal_fsync_duration_seconds",
                "Time until a batch of requests is on disk",
                tallies.sync.clone(),
            );
            registry.register("waypost_embed_batch_requests", "Requests in a batch", tallies.batch.clone());
            registry.register_collector(Box::new(scrape));
            let mut page = String::new();
            // A string takes everything.
            let _ = text::encode(&mut page, &registry);
            Ok(classic::from_open_metrics(&page))
        })
        .await
}

// === impl Scrape ===

impl Scrape {
    fn take(shared: &Shared) -> Result<Self, crate::mvcc::StoreError> {
        let size = shared.backend.size()?;
        let watches = lock(&shared.watches).hub.counts();
        let auth_revision = read(&shared.policy).revision();
        let alarms = lock(&shared.alarms).list(0).len() as u64;
        let space = read(&shared.space);
        let store = space.store();
        Ok(Self {
            tallies: Arc::clone(&shared.tallies),
            process: Process::look(),
            size,
            watches,
            member: shared.member.id,
            keys: store.keys() as u64,
            leases: space.lessor().len() as u64,
            revision: store.revision(),
            compacted: store.compacted(),
            auth_revision,
            alarms,
            quota: shared.options.quota.unwrap_or(0),
            written: shared.index(),
            waiting: shared.waiting.load(Ordering::Relaxed) as u64,
        })
    }

    fn gauges(&self) -> [(&'static str, &'static str, f64); 21] {
        let Counts { streams, watches, behind, queued, .. } = self.watches;
        let counts = [streams, watches, behind, queued].map(|count| as_f64(count as u64));
        let [streams, watches, behind, queued] = counts;
        let signed = |number: i64| as_f64(number.unsigned_abs()) * if number < 0 { -1.0 } else { 1.0 };
        [
            ("etcd_server_has_leader", "Whether there is a leader: the only member is", 1.0),
            ("etcd_server_is_leader", "Whether this member leads", 1.0),
            ("etcd_server_is_learner", "Whether this member is a learner", 0.0),
            (
                "etcd_server_proposals_committed_total",
                "Requests that were written, ever",
                as_f64(self.written),
            ),
            ("etcd_server_proposals_applied_total", "Requests that were applied, ever", as_f64(self.written)),
            ("etcd_server_proposals_pending", "Requests that wait to be written", as_f64(self.waiting)),
            (
                "etcd_server_quota_backend_bytes",
                "Bytes on disk at which writes are refused",
                as_f64(self.quota),
            ),
            (
                "etcd_server_health_success",
                "Times that the server was found healthy",
                as_f64(self.tallies.healthy.get()),
            ),
            ("etcd_server_health_failures", "Times that it was not", as_f64(self.tallies.unhealthy.get())),
            ("etcd_mvcc_db_total_size_in_bytes", "Bytes on disk", as_f64(self.size.allocated)),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes on disk that are in use",
                as_f64(self.size.in_use),
            ),
            ("etcd_debugging_mvcc_keys_total", "Keys with any version left", as_f64(self.keys)),
            ("etcd_debugging_mvcc_current_revision", "The revision", signed(self.revision)),
            ("etcd_debugging_mvcc_compact_revision", "The last compacted revision", signed(self.compacted)),
            ("etcd_debugging_mvcc_watch_stream_total", "Streams of watches", streams),
            ("etcd_debugging_mvcc_watcher_total", "Watches", watches),
            ("etcd_debugging_mvcc_slow_watcher_total", "Watches that are behind", behind),
            ("etcd_debugging_auth_revision", "Revision of users and roles", as_f64(self.auth_revision)),
            (
                "waypost_embed_watch_responses_waiting",
                "Answers to watches that wait for their clients",
                queued,
            ),
            ("waypost_embed_leases", "Leases", as_f64(self.leases)),
            ("waypost_embed_alarms", "Alarms that are on", as_f64(self.alarms)),
        ]
    }

    fn counters(&self) -> [(&'static str, &'static str, u64); 12] {
        let tallies = &self.tallies;
        [
            ("etcd_network_client_grpc_received_bytes", "Bytes from clients", tallies.received.get()),
            ("etcd_network_client_grpc_sent_bytes", "Bytes to clients", tallies.sent.get()),
            ("etcd_debugging_lease_granted", "Leases that were granted", tallies.leases_granted.get()),
            ("etcd_debugging_lease_revoked", "Leases that were revoked", tallies.leases_revoked.get()),
            ("etcd_debugging_lease_renewed", "Renewals of leases", tallies.leases_renewed.get()),
            (
                "etcd_debugging_server_lease_expired",
                "Leases that ended in time",
                tallies.leases_expired.get(),
            ),
            ("etcd_mvcc_put", "Keys that were put", tallies.puts.get()),
            ("etcd_mvcc_delete", "Keys that were deleted", tallies.deletes.get()),
            ("etcd_debugging_mvcc_events", "Changes of keys", tallies.puts.get() + tallies.deletes.get()),
            ("etcd_server_proposals_failed", "Requests that were undone for a failure", tallies.failed.get()),
            ("etcd_server_leader_changes_seen", "Changes of the leader", 1),
            ("etcd_server_heartbeat_send_failures", "Heartbeats to other members that failed", 0),
        ]
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in self.gauges() {
            gauge(&mut encoder, name, help, value)?;
        }
        for (name, help, value) in self.counters() {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for (name, help, key, value) in [
            ("etcd_server_id", "The member", "server_id", format!("{:x}", self.member)),
            (
                "etcd_server_version",
                "The version whose behaviour this is",
                "server_version",
                VERSION.to_owned(),
            ),
            (
                "etcd_cluster_version",
                "The version of the cluster",
                "cluster_version",
                STORAGE_VERSION.to_owned(),
            ),
            ("waypost_embed_version", "The version", "version", env!("CARGO_PKG_VERSION").to_owned()),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(1_i64).encode(family.encode_family(&[(key, value)])?)?;
        }
        let methods: Vec<&Method> =
            self.tallies.calls.methods().filter(|method| method.started() > 0).collect();
        if !methods.is_empty() {
            calls(&mut encoder, &methods)?;
        }
        self.process.encode(&mut encoder)
    }
}

fn calls(encoder: &mut DescriptorEncoder<'_>, methods: &[&Method]) -> Result<(), fmt::Error> {
    let labels = |method: &Method| {
        [("grpc_method", method.name), ("grpc_service", method.service), ("grpc_type", method.kind())]
    };
    let name = "grpc_server_started";
    let mut family = encoder.encode_descriptor(name, "Calls that have begun", None, MetricType::Counter)?;
    for method in methods {
        ConstCounter::new(method.started()).encode(family.encode_family(&labels(method))?)?;
    }
    let name = "grpc_server_handled";
    let mut family = encoder.encode_descriptor(name, "Calls that have ended", None, MetricType::Counter)?;
    for method in methods {
        for (code, count) in method.handled() {
            if count > 0 || code == "OK" {
                let [name, service, kind] = labels(method);
                let labels = [("grpc_code", code), name, service, kind];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

// === impl Process ===

impl Process {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory of the process", self.resident_bytes.map(as_f64)),
            ("process_open_fds", "Files that are open", self.open_files.map(as_f64)),
            ("process_max_fds", "Files that may be open", self.max_files.map(as_f64)),
        ] {
            if let Some(value) = value {
                gauge(encoder, name, help, value)?;
            }
        }
        if let Some(seconds) = self.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let (name, help) = ("process_cpu_seconds", "Time of the processor");
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here comes near 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

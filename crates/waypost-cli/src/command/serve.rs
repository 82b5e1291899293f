//! `waypost serve`: an etcd of one node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};
use serde::Serialize;
use waypost_embed::server::{
    AutoCompaction, Builder, DEFAULT_MAX_REQUEST_BYTES, DEFAULT_QUOTA, Origins, Server, ServerTls, StartError,
};

use crate::args::{UsageError, parse_duration};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Run an etcd of one node: everything in one process and one folder.
///
/// It answers etcd's v3 API, so that etcdctl and every client of etcd work with it. What it acknowledges is on the disk.
/// There is no second node to go on when the machine fails; where that matters, run a cluster of etcd. The options have
/// the names and the defaults that etcd has; of one that is given twice the last one holds. It ends with Ctrl-C or SIGTERM.
#[derive(Args, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  waypost serve
  waypost serve --data-dir /var/lib/waypost --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://10.0.0.1:2379
  waypost serve --listen-client-urls http://127.0.0.1:2379,unix:///run/waypost.sock
  waypost serve --listen-client-urls https://0.0.0.0:2379 --advertise-client-urls https://etcd.example:2379 --cert-file me.pem --key-file me.key
  waypost serve --data-dir new --restore snapshot.db     go on with what `etcdctl snapshot save` saved")]
pub(crate) struct ServeArgs {
    /// The folder that holds everything; made if absent.
    #[arg(long, default_value = "default.waypost", value_name = "DIR")]
    data_dir: PathBuf,
    /// The name in the list of members.
    #[arg(long, default_value = "default")]
    name: String,
    /// Where to listen: http(s)://HOST:PORT (port 0 takes a free one) or unix(s)://PATH, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379", value_name = "URLS")]
    listen_client_urls: Vec<String>,
    /// Where clients reach it, as the list of members tells them; by default where it listens, and necessary where that
    /// is every address.
    #[arg(long, value_delimiter = ',', value_name = "URLS")]
    advertise_client_urls: Vec<String>,
    /// Where to serve /metrics and /health only, for those who may not have a client's certificate.
    #[arg(long, value_delimiter = ',', value_name = "URLS")]
    listen_metrics_urls: Vec<String>,
    /// Origins whose web pages may read what is answered over HTTP: * for all, or http(s)://HOST:PORT separated by commas.
    #[arg(long, default_value_t, value_name = "ORIGINS")]
    cors: Origins,
    /// Who may connect to Unix sockets: the mode of their files.
    #[arg(long, default_value = "0600", value_parser = parse_mode, value_name = "MODE")]
    socket_mode: u32,
    /// Bytes on disk at which writes are refused: 0 is 2 GiB, less is no limit.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "BYTES")]
    quota_backend_bytes: i64,
    /// Largest request in bytes.
    #[arg(long, default_value_t = DEFAULT_MAX_REQUEST_BYTES, value_name = "BYTES")]
    max_request_bytes: usize,
    /// Operations in each list of a transaction.
    #[arg(long, default_value_t = 128, value_name = "COUNT")]
    max_txn_ops: usize,
    /// What --auto-compaction-retention counts.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    auto_compaction_mode: Mode,
    /// History to keep: hours or a duration such as 30m, or a number of revisions; 0 keeps all.
    #[arg(long, default_value = "0", value_name = "RETENTION")]
    auto_compaction_retention: String,
    /// How long a watch must be idle to be told of progress.
    #[arg(long, default_value = "10m", value_parser = parse_duration, value_name = "INTERVAL")]
    watch_progress_notify_interval: Duration,
    /// A lease lives one and a half times as long as this at least, as with etcd; nobody is elected.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000), value_name = "MS")]
    election_timeout: u32,
    /// Cost of the hashes of passwords.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=31), value_name = "COST")]
    bcrypt_cost: u32,
    /// Start with the content of this snapshot of etcd; the data directory must be new.
    #[arg(long, value_name = "FILE")]
    restore: Option<PathBuf>,
    // Last: what follows it in the help would stand below its heading.
    #[command(flatten)]
    tls: TlsArgs,
}

/// Certificates, as etcd names them. Files are PEM, and read again when they change.
#[derive(Args, Debug)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// The server's certificate, for https:// and unixs:// URLs.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Authority of clients' certificates: with it, every client must show one.
    #[arg(long, value_name = "FILE")]
    trusted_ca_file: Option<PathBuf>,
    /// The common name of a client's certificate is its user, where it shows no token.
    #[arg(long, requires = "trusted_ca_file", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_name = "BOOL", action = ArgAction::Set)]
    client_cert_auth: bool,
    /// Revoked certificates of clients.
    #[arg(long, value_name = "FILE", requires = "trusted_ca_file")]
    client_crl_file: Option<PathBuf>,
    /// Make a certificate and sign it: DIR/fixtures/client/cert.pem of the data directory.
    #[arg(long, conflicts_with = "cert_file", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_name = "BOOL", action = ArgAction::Set)]
    auto_tls: bool,
}

/// How much history is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// By age.
    #[default]
    Periodic,
    /// By number of revisions.
    Revision,
}

/// What is said once it serves.
#[derive(Serialize)]
struct Announcement<'a> {
    urls: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    metrics: &'a [String],
}

// === impl ServeArgs ===

impl ServeArgs {
    pub(crate) async fn run(self, mut out: Output) -> anyhow::Result<Exit> {
        // Before the start, so that a signal meanwhile ends it in good order, too.
        let mut interrupt = Interrupt::new().context("cannot catch signals")?;
        let server = self.builder()?.start().await.map_err(|error| match error {
            StartError::Url { .. } | StartError::Advertise { .. } => {
                anyhow::Error::new(UsageError(error.to_string()))
            }
            other => other.into(),
        })?;
        let (urls, metrics) = (server.listen_urls(), server.metrics_urls());
        let said = if out.is_json() {
            out.json(&Announcement { urls, metrics })
        } else if metrics.is_empty() {
            out.line(format_args!("listening on {}", urls.join(" ")))
        } else {
            out.line(format_args!("metrics at {}", metrics.join(" ")))
                .and_then(|()| out.line(format_args!("listening on {}", urls.join(" "))))
        };
        if said.is_ok() {
            interrupt.next().await;
        }
        tokio::select! {
            () = server.shutdown() => {}
            // Whoever asks twice does not want to wait.
            () = interrupt.next() => {}
        }
        said?;
        Ok(Exit::Ok)
    }

    fn builder(self) -> Result<Builder, UsageError> {
        let quota = match u64::try_from(self.quota_backend_bytes) {
            Ok(0) => Some(DEFAULT_QUOTA),
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        };
        let builder = Server::builder()
            .data_dir(self.data_dir)
            .name(self.name)
            .listen(self.listen_client_urls)
            .listen_metrics(self.listen_metrics_urls)
            .advertise(self.advertise_client_urls)
            .socket_mode(self.socket_mode)
            .quota_backend_bytes(quota)
            .max_request_bytes(self.max_request_bytes)
            .max_txn_ops(self.max_txn_ops)
            .auto_compaction(compaction(self.auto_compaction_mode, &self.auto_compaction_retention)?)
            .progress_interval(self.watch_progress_notify_interval)
            .min_lease_ttl(i64::from((self.election_timeout * 3).div_ceil(2000)))
            .bcrypt_cost(self.bcrypt_cost)
            .cors(self.cors);
        let builder = match self.tls.options()? {
            Some(tls) => builder.tls(tls),
            None => builder,
        };
        Ok(match self.restore {
            Some(snapshot) => builder.restore(snapshot),
            None => builder,
        })
    }
}

// === impl TlsArgs ===

impl TlsArgs {
    fn options(self) -> Result<Option<ServerTls>, UsageError> {
        let mut tls = match (self.cert_file, self.key_file) {
            (Some(certificate), Some(key)) => ServerTls::files(certificate, key),
            _ if self.auto_tls => ServerTls::self_signed(),
            _ if self.trusted_ca_file.is_some() => {
                let what = "--trusted-ca-file needs a certificate of the server: --cert-file and --key-file";
                return Err(UsageError(what.to_owned()));
            }
            _ => return Ok(None),
        };
        if let Some(authority) = self.trusted_ca_file {
            tls = tls.trusted_ca(authority);
        }
        if let Some(list) = self.client_crl_file {
            tls = tls.client_crl(list);
        }
        Ok(Some(tls.client_cert_auth(self.client_cert_auth)))
    }
}

/// The mode of a file, in octal digits.
fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("it must be three octal digits such as 0660".to_owned()),
    }
}

/// What etcd makes of mode and retention.
fn compaction(mode: Mode, retention: &str) -> Result<AutoCompaction, UsageError> {
    let wrong = |reason: &str| UsageError(format!("--auto-compaction-retention {retention}: {reason}"));
    match (mode, retention.parse::<u32>()) {
        (_, Ok(0)) => Ok(AutoCompaction::Off),
        (Mode::Periodic, Ok(hours)) => {
            Ok(AutoCompaction::Periodic(Duration::from_secs(u64::from(hours) * 3600)))
        }
        (Mode::Periodic, Err(_)) => match parse_duration(retention).map_err(|reason| wrong(&reason))? {
            Duration::ZERO => Ok(AutoCompaction::Off),
            age => Ok(AutoCompaction::Periodic(age)),
        },
        (Mode::Revision, Ok(revisions)) => Ok(AutoCompaction::Revisions(i64::from(revisions))),
        (Mode::Revision, Err(_)) => Err(wrong("it is no number of revisions")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_as_etcd_does() {
        let hours = |hours: u64| AutoCompaction::Periodic(Duration::from_secs(hours * 3600));
        for (mode, text, expected) in [
            (Mode::Periodic, "0", AutoCompaction::Off),
            (Mode::Periodic, "0s", AutoCompaction::Off),
            (Mode::Periodic, "2", hours(2)),
            (Mode::Periodic, "30m", AutoCompaction::Periodic(Duration::from_secs(1800))),
            (Mode::Revision, "0", AutoCompaction::Off),
            (Mode::Revision, "1000", AutoCompaction::Revisions(1000)),
        ] {
            assert_eq!(compaction(mode, text).unwrap(), expected, "{mode:?} {text}");
        }
        for (mode, text) in [(Mode::Periodic, "-1"), (Mode::Revision, "1h"), (Mode::Revision, "")] {
            assert!(compaction(mode, text).is_err(), "{mode:?} {text}");
        }
    }
}

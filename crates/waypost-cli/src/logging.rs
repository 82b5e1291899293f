//! Logs go to standard error, so that standard output is the answer and nothing else.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Logs from now on: what `WAYPOST_LOG` says, else by how often `-v` was given.
pub(crate) fn start(verbose: u8) {
    let by_count = match verbose {
        0 => "off",
        1 => {
            "waypost=info,waypost_etcd=info,waypost_registry=info,waypost_discovery=info,waypost_channel=info"
        }
        2 => {
            "waypost=debug,waypost_etcd=debug,waypost_registry=debug,waypost_discovery=debug,waypost_channel=debug"
        }
        _ => "trace",
    };
    let filter = std::env::var("WAYPOST_LOG").ok().filter(|filter| !filter.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter.as_deref().unwrap_or(by_count)))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // Standard error may be closed; telling it so would not help.
        .log_internal_errors(false)
        .init();
}

//! An etcd v3 server in a program of one's own: `embedded DATA_DIR [LISTEN_URL]`.
//!
//! Says where it listens, and ends in good order with Ctrl-C.

use std::io::{self, Write as _};

use waypost_embed::server::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let data_dir = args.next().ok_or("usage: embedded DATA_DIR [LISTEN_URL]")?;
    let listen =
        args.next().map_or_else(|| "http://127.0.0.1:2379".into(), |url| url.to_string_lossy().into_owned());
    let server = Server::builder().data_dir(data_dir).listen([listen]).start().await?;
    writeln!(io::stdout(), "listening on {}", server.urls().join(" "))?;
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}

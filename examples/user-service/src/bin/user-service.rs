//! `user-service serve [LISTEN]`: a server, until Ctrl-C or SIGTERM. `user-service call [SERVERS [CALLS]]`: a client that waits for
//! so many servers, then asks for so many users, one after the other (0: until it is ended), and says who answered.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what it is for")]

use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use user_service::Users;

const USAGE: &str = "usage: user-service serve [LISTEN] | call [SERVERS [CALLS]]";
/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let etcd = std::env::var("WAYPOST_ENDPOINTS").unwrap_or("http://127.0.0.1:2379".into());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |number| number.parse::<u64>());
    match arguments.first().map(String::as_str) {
        Some("serve") => {
            let listen = arguments.get(1).map_or("127.0.0.1:0", String::as_str);
            user_service::serve(&etcd, listen, asked_to_end()).await
        }
        Some("call") => call(&etcd, number(1, 1)?, number(2, 10)?).await,
        _ => Err(USAGE.into()),
    }
}

/// SIGTERM or SIGINT.
async fn asked_to_end() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn call(etcd: &str, servers: u64, calls: u64) -> Result<(), Box<dyn std::error::Error>> {
    let users = Users::connect(etcd)?;
    if !users.connected(usize::try_from(servers)?, Duration::from_secs(60)).await {
        return Err(format!("there are no {servers} servers to connect to").into());
    }
    let mut end = Box::pin(asked_to_end());
    let mut id = 0;
    while calls == 0 || id < calls {
        id += 1;
        let user = users.find(id).await?;
        println!("{} from {}", user.name, user.server);
        tokio::select! {
            ended = &mut end => return Ok(ended?),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    Ok(())
}

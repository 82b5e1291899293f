//! A process that registers an instance, prints every state of the registration as a line, and leaves in good order on
//! SIGTERM and SIGINT.
//!
//! ```text
//! cargo run --example registrant -- http://127.0.0.1:2379 greeter 0.0.0.0:50051 10
//! ```
//!
//! The last argument is the TTL of the lease in seconds. `POD_IP` is used where the address is `0.0.0.0`.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{error::Error, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use waypost_etcd::{Client, ClientOptions};
use waypost_model::Instance;
use waypost_registry::{Registry, RegistryOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [etcd, service, address, ttl] = arguments.as_slice() else {
        return Err("usage: registrant <etcd URL> <service> <host:port> <TTL in seconds>".into());
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let client = Client::new(ClientOptions::new([etcd.as_str()]))?;
    let options =
        RegistryOptions::new(waypost_model::layout("grpc", None)?).ttl(Duration::from_secs(ttl.parse()?));
    let registry = Registry::new(client, options);
    let registration = registry.register(Instance::new(service.parse()?, address.parse()?))?;
    let mut state = registration.state();
    println!("{} {}", registration.name(), *state.borrow_and_update());
    loop {
        tokio::select! {
            Ok(()) = state.changed() => println!("{}", *state.borrow_and_update()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let options = registry.shutdown_options().grace(Duration::ZERO);
    registry.shutdown_gracefully(options, std::future::ready(())).await.deregistered?;
    println!("{}", *state.borrow_and_update());
    Ok(())
}

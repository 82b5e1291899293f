//! One server of the demo: a greeter that is registered while it runs.

use std::io::Read as _;

use greeter::{Greeter, GreeterServer, HelloReply, HelloRequest, reflection};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use waypost::Waypost;
use waypost::model::ServiceName;

use crate::interrupt::Interrupt;
use crate::output::Output;

/// What a server says on standard output, as one line of JSON, once it is registered.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Announcement {
    /// Where it is called.
    pub(super) address: String,
}

struct Greeting;

#[tonic::async_trait]
impl Greeter for Greeting {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

/// Serves until SIGTERM or SIGINT, or until standard input ends: whoever started us holds its other end, so we do not
/// outlive it, however it dies.
pub(crate) async fn serve(waypost: &Waypost, service: &ServiceName, mut out: Output) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::new()?;
    let orphaned = orphaned();
    let shutdown = async move {
        tokio::select! {
            () = interrupt.next() => {}
            _ = orphaned => {}
        }
    };
    let (v1, v1alpha) = reflection()?;
    let serving = waypost
        .serve(service, "127.0.0.1:0", GreeterServer::new(Greeting))
        .add_service(v1)
        .add_service(v1alpha)
        .shutdown(shutdown)
        .start()
        .await?;
    let (registration, mut state) = (serving.registration().instance(), serving.registration().state());
    let announce = async move {
        state.wait_for(waypost::registry::RegistrationState::is_registered).await?;
        out.json(&Announcement { address: registration.address() })?;
        anyhow::Ok(())
    };
    let (announced, ended) = tokio::join!(announce, serving.run());
    ended?;
    // Ended before it was registered: there was nothing to announce.
    let _ = announced;
    Ok(())
}

/// Resolves when standard input ends. It is read on a thread of its own, which the process does not wait for.
fn orphaned() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while std::io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
        drop(sender);
    });
    receiver
}

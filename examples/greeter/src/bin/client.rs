//! Greets ten times through whoever serves `greeter`: `greeter-client [NAME]`.

#![allow(clippy::print_stdout, reason = "what it is for")]

use greeter::{GreeterClient, HelloRequest};
use tonic::Request;
use waypost::Waypost;
use waypost::channel::{EndpointInfo, Idempotent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let etcd = std::env::var("WAYPOST_ENDPOINTS").unwrap_or("http://127.0.0.1:2379".into());
    let name = std::env::args().nth(1).unwrap_or("World".into());

    let waypost = Waypost::connect(&etcd)?;
    let mut greeter = GreeterClient::new(waypost.channel("greeter")?);
    for _ in 0..10 {
        let mut request = Request::new(HelloRequest { name: name.clone() });
        // A greeting may be made twice: if its server dies, another one makes it.
        request.extensions_mut().insert(Idempotent);
        let reply = greeter.say_hello(request).await?;
        let server = reply.extensions().get::<EndpointInfo>().map(|info| info.key().id.to_string());
        println!("{} (from {})", reply.get_ref().message, server.unwrap_or_default());
    }
    Ok(())
}

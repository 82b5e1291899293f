//! A greeter that is registered while it runs: `greeter-server [LISTEN]`. End it with Ctrl-C or SIGTERM.

use greeter::{Greeter, GreeterServer, HelloReply, HelloRequest, reflection};
use tonic::{Request, Response, Status};
use waypost::Waypost;

struct English;

#[tonic::async_trait]
impl Greeter for English {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let etcd = std::env::var("WAYPOST_ENDPOINTS").unwrap_or("http://127.0.0.1:2379".into());
    let listen = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());

    let waypost = Waypost::connect(&etcd)?;
    let (v1, v1alpha) = reflection()?;
    let serve = waypost.serve("greeter", listen, GreeterServer::new(English));
    serve.add_service(v1).add_service(v1alpha).await?;
    Ok(())
}

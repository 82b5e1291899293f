//! Just enough HTTP/1.0 to ask etcd how it is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// One attempt of one request; a server that says nothing for 2 s counts as down.
const ATTEMPT: Duration = Duration::from_secs(2);

/// For what a server that is up may be too busy to answer at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// GET of a path, of a server that is known to be up.
pub(crate) async fn get_patiently(server: SocketAddr, path: &str) -> io::Result<Response> {
    send(server, get_request(server, path), PATIENCE).await
}

/// GET of a path.
pub(crate) async fn get(server: SocketAddr, path: &str) -> io::Result<Response> {
    send(server, get_request(server, path), ATTEMPT).await
}

fn get_request(server: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")
}

/// POST of a JSON document.
pub(crate) async fn post(server: SocketAddr, path: &str, json: &str) -> io::Result<Response> {
    let length = json.len();
    send(
        server,
        format!(
            "POST {path} HTTP/1.0\r\nHost: {server}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{json}"
        ),
        ATTEMPT,
    )
    .await
}

async fn send(server: SocketAddr, request: String, limit: Duration) -> io::Result<Response> {
    // HTTP/1.0: the server closes after its answer and does not send chunks.
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(limit, exchange).await.map_err(|_| io::ErrorKind::TimedOut)??;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, body: body.to_owned() })
}

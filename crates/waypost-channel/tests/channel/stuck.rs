//! Connections that take no more: what lies in front of them, and what becomes of it when they are lost.

use crate::support::wire::{SETTINGS, WINDOW_UPDATE, frame};
use crate::support::{Fleet, Server, builder, busy, instance, ready, send, within};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::body::Body;
use waypost_channel::{Channel, Connector, EndpointInfo, TcpConnector, Transport, WaitForReady};
use waypost_model::Endpoint;

/// The transport of one address: a few bytes fit into it at a time. The other end goes to the test.
#[derive(Debug)]
struct Narrow {
    address: Endpoint,
    ends: UnboundedSender<DuplexStream>,
}

/// The servers' ends of its connections.
struct Ends(UnboundedReceiver<DuplexStream>);

const ROOM: usize = 1_000;

impl Connector for Narrow {
    fn refuses(&self, _: &Endpoint) -> Option<String> {
        None
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Transport>> {
        if endpoint != self.address {
            return TcpConnector::new().connect(endpoint);
        }
        let (client, server) = tokio::io::duplex(ROOM);
        let taken = self.ends.send(server).map_err(io::Error::other);
        Box::pin(async move { taken.map(|()| Box::new(client) as Transport) })
    }
}

impl Ends {
    /// The next, when it has read what a client says first. It reads no more after that.
    async fn next(&mut self) -> DuplexStream {
        let mut server = within(self.0.recv()).await.unwrap();
        for flags in [0, 1] {
            server.write_all(&frame(SETTINGS, flags, 0, &[])).await.unwrap();
        }
        within(server.read_exact(&mut [0; 24])).await.unwrap();
        // SETTINGS, WINDOW_UPDATE, and the acknowledgement of ours.
        for _ in 0..3 {
            let mut head = [0; 9];
            within(server.read_exact(&mut head)).await.unwrap();
            within(server.read_exact(&mut vec![0; head[2].into()])).await.unwrap();
        }
        server
    }
}

/// A channel to one such server.
async fn narrow() -> (Channel, DuplexStream, Ends, Fleet) {
    let (ends, accepted) = unbounded_channel();
    let address = Endpoint::new("10.0.0.1", 1).unwrap();
    let (fleet, subscription) = Fleet::with([instance(0, address.clone())]);
    let channel = builder(subscription).connector(Narrow { address, ends }).keepalive(None).build();
    let mut ends = Ends(accepted);
    let server = ends.next().await;
    ready(&channel, 1).await;
    (channel, server, ends, fleet)
}

/// With headers that do not fit into the line.
fn wide() -> http::Request<Body> {
    let request = http::Request::post("/grpc.health.v1.Health/Check").header("x-wide", "w".repeat(4 * ROOM));
    request.body(Body::new(Full::new(Bytes::from_static(&[0; 5])))).unwrap()
}

/// Some of what is sent has come, and the line is full of the rest.
async fn begins(server: &mut DuplexStream) {
    within(server.read_exact(&mut [0; 100])).await.unwrap();
}

/// Idempotent or not, and though the library has encoded it.
#[tokio::test]
async fn a_call_that_lies_in_front_of_a_line_that_is_stuck_goes_elsewhere() {
    let (channel, mut server, _ends, fleet) = narrow().await;
    let waits = tokio::spawn(send(&channel, wide()));
    let good = Server::healthy().await;
    fleet.put(instance(1, good.endpoint()));
    ready(&channel, 2).await;
    begins(&mut server).await;
    drop(server);
    let response = within(waits).await.unwrap();
    let at = response.extensions().get::<EndpointInfo>().unwrap();
    assert_eq!((at.endpoint(), at.attempts()), (&good.endpoint(), 1));
}

/// With one endpoint, whose gate is closed before the call learns that it is to go on.
#[tokio::test]
async fn a_call_does_not_come_back_to_the_connection_that_it_has_lost() {
    let (channel, mut server, mut ends, _fleet) = narrow().await;
    let mut request = wide();
    request.extensions_mut().insert(WaitForReady(true));
    let call = tokio::spawn(send(&channel, request));
    begins(&mut server).await;
    drop(server);
    let mut next = ends.next().await;
    begins(&mut next).await;
    assert_eq!(channel.call_stats().unprocessed, 1);
    call.abort();
}

/// It reads nothing, so the library, which has given the connection up, cannot say good-bye, and waits.
#[tokio::test]
async fn a_connection_whose_server_has_broken_the_protocol_is_replaced() {
    let (channel, mut server, mut ends, _fleet) = narrow().await;
    let stuck = tokio::spawn(send(&channel, wide()));
    busy(&channel, 1).await;
    // A window may not grow by nothing.
    server.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0; 4])).await.unwrap();
    let calls = tokio::spawn({
        let channel = channel.clone();
        async move {
            loop {
                send(&channel, wide()).await;
                tokio::task::yield_now().await;
            }
        }
    });
    ends.next().await;
    calls.abort();
    drop((stuck, server));
}

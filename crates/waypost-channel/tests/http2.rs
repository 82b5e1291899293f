//! What happens on one connection, frame by frame.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod support;

use http_body_util::BodyExt;
use std::time::Duration;
use support::wire::{
    DATA, END_HEADERS, END_STREAM, HEADERS, OK, RST_STREAM, UNIMPLEMENTED, Wire, frame, listen,
};
use support::{Fleet, Server, builder, check, instance, ready, served_by, within};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::body::Body;
use tower::Service as _;
use waypost_channel::{Backoff, Channel, RetryPolicy};
use waypost_model::Endpoint;

/// A channel to a server of frames.
async fn wire() -> (Channel, Wire, (TcpListener, Fleet)) {
    let (listener, endpoint) = listen().await;
    let (fleet, subscription) = Fleet::with([instance(0, endpoint)]);
    let channel = builder(subscription).build();
    let wire = Wire::accept(&listener).await;
    ready(&channel, 1).await;
    (channel, wire, (listener, fleet))
}

fn call(channel: &Channel, body: Body) -> impl Future<Output = http::Response<Body>> + Send + 'static {
    let request = http::Request::post("/a.B/C").body(body).unwrap();
    let answer = channel.clone().call(request);
    async move { within(answer).await.unwrap_or_else(|never| match never {}) }
}

/// The connection is as it was: a call goes over it, behind whatever was sent before.
async fn lives(channel: &Channel, wire: &mut Wire) {
    let (answer, ()) = tokio::join!(check(channel), async {
        let stream = wire.next(HEADERS).await.stream;
        wire.send(HEADERS, END_HEADERS | END_STREAM, stream, UNIMPLEMENTED).await;
    });
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn many_small_messages_that_nobody_reads_yet_do_not_end_the_connection() {
    const MESSAGES: usize = 40_000;
    let (channel, mut wire, _up) = wire().await;
    let (response, stream) = tokio::join!(call(&channel, Body::empty()), async {
        let stream = wire.next(HEADERS).await.stream;
        wire.send(HEADERS, END_HEADERS, stream, OK).await;
        stream
    });
    let message = frame(DATA, 0, stream, &[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);
    wire.send_all(&message.repeat(MESSAGES)).await;
    lives(&channel, &mut wire).await;
    wire.send(DATA, END_STREAM, stream, &[]).await;
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body.len(), 10 * MESSAGES);
}

#[tokio::test]
async fn answers_to_many_calls_that_were_given_up_do_not_end_the_connection() {
    const CALLS: usize = 12_000;
    let (channel, mut wire, _up) = wire().await;
    let given_up = CancellationToken::new();
    let calls: Vec<_> = (0..CALLS)
        .map(|_| tokio::spawn(given_up.clone().run_until_cancelled_owned(call(&channel, Body::empty()))))
        .collect();
    let mut answers = Vec::new();
    for _ in 0..CALLS {
        let stream = wire.next(HEADERS).await.stream;
        answers.extend(frame(HEADERS, END_HEADERS, stream, OK));
        answers.extend(frame(DATA, END_STREAM, stream, b"answer"));
    }
    given_up.cancel();
    for call in calls {
        assert!(within(call).await.unwrap().is_none());
    }
    for _ in 0..CALLS {
        wire.next(RST_STREAM).await;
    }
    wire.send_all(&answers).await;
    lives(&channel, &mut wire).await;
}

/// Takes the headers of requests and nothing more: resets their streams.
async fn resetting(reason: h2::Reason) -> (Endpoint, watch::Receiver<usize>) {
    let (listener, endpoint) = listen().await;
    let (seen, requests) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut server = h2::server::Builder::new();
                let mut connection =
                    server.initial_window_size(0).handshake::<_, bytes::Bytes>(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    seen.send_modify(|count| *count += 1);
                    respond.send_reset(reason);
                }
            });
        }
    });
    (endpoint, requests)
}

/// Nobody knows what the server has done by then.
#[tokio::test]
async fn a_call_whose_headers_the_server_has_taken_is_not_sent_again() {
    for (reason, code) in
        [(h2::Reason::CANCEL, Code::Cancelled), (h2::Reason::INTERNAL_ERROR, Code::Internal)]
    {
        let (address, requests) = resetting(reason).await;
        let (_fleet, subscription) = Fleet::with([instance(0, address)]);
        let channel = builder(subscription).build();
        assert_eq!(check(&channel).await.unwrap_err().code(), code);
        assert_eq!(*requests.borrow(), 1);
    }
}

#[tokio::test]
async fn the_only_endpoint_is_not_asked_again_and_again_at_once() {
    let (refusing, mut requests) = resetting(h2::Reason::REFUSED_STREAM).await;
    let (fleet, subscription) = Fleet::with([instance(0, refusing)]);
    let hour = Duration::from_secs(3600);
    let patient = RetryPolicy::default().with_backoff(Backoff::new(hour, hour));
    let channel = builder(subscription).retry(patient).build();
    ready(&channel, 1).await;
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    within(requests.wait_for(|count| *count == 2)).await.unwrap();
    let good = Server::healthy().await;
    fleet.put(instance(1, good.endpoint()));
    assert_eq!(served_by(&within(call).await.unwrap().unwrap()), 1);
    assert_eq!(*requests.borrow(), 2);
}

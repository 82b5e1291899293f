//! What happens on one connection, frame by frame.

use crate::support::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, GOOD, HEADERS, OK, PRIORITY, RST_STREAM,
    UNIMPLEMENTED, Wire, frame, listen,
};
use crate::support::{Fleet, Server, builder, check, instance, ready, send, served_by, signal, within};
use bytes::Bytes;
use futures::channel::mpsc::unbounded;
use futures::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use waypost_channel::{Backoff, Channel, EndpointInfo, RetryPolicy, ServiceConfig};
use waypost_model::Endpoint;

/// Of the calls that have a deadline.
const DEADLINE: Duration = Duration::from_secs(3600);

/// A channel to a server of frames.
async fn wire() -> (Channel, Wire, (TcpListener, Fleet)) {
    wire_with(65_535).await
}

/// To one that has room for so many bytes of each request.
async fn wire_with(window: u32) -> (Channel, Wire, (TcpListener, Fleet)) {
    let (listener, endpoint) = listen().await;
    let (fleet, subscription) = Fleet::with([instance(0, endpoint)]);
    let channel = builder(subscription).timeout(DEADLINE).keepalive(None).build();
    let wire = Wire::accept_with(&listener, window).await;
    ready(&channel, 1).await;
    (channel, wire, (listener, fleet))
}

fn call(channel: &Channel, body: Body) -> impl Future<Output = http::Response<Body>> + Send + 'static {
    send(channel, http::Request::post("/a.B/C").body(body).unwrap())
}

fn status(response: &http::Response<Body>) -> Code {
    Status::from_header_map(response.headers()).expect("a status in the headers").code()
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

/// A server begins with the headers, as it does with what a client streams: though not a byte of the message has left.
#[tokio::test]
async fn a_call_whose_headers_have_left_is_not_sent_again_when_its_connection_is_lost() {
    let (channel, mut wire, (listener, fleet)) = wire_with(0).await;
    let good = Server::healthy().await;
    let (answer, ()) = tokio::join!(check(&channel), async {
        wire.next(HEADERS).await;
        fleet.put(instance(1, good.endpoint()));
        ready(&channel, 2).await;
        drop((wire, listener));
    });
    let error = answer.unwrap_err();
    assert_eq!((error.code(), good.calls()), (Code::Unavailable, 0), "{error}");
}

/// Each for itself, whatever becomes of the others.
#[tokio::test]
async fn responses_that_nobody_reads_hold_up_no_other() {
    const RESPONSES: usize = 20;
    const FRAMES: usize = 100;
    let (channel, mut wire, _up) = wire().await;
    let mut kept = Vec::new();
    for _ in 0..RESPONSES {
        let (response, stream) = tokio::join!(call(&channel, Body::empty()), async {
            let stream = wire.next(HEADERS).await.stream;
            wire.send(HEADERS, END_HEADERS, stream, OK).await;
            stream
        });
        wire.send_all(&frame(DATA, 0, stream, &vec![7; 16_384]).repeat(FRAMES)).await;
        kept.push((response, stream));
    }
    lives(&channel, &mut wire).await;
    for (response, stream) in kept {
        wire.send(HEADERS, END_HEADERS | END_STREAM, stream, GOOD).await;
        let body = within(response.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes().len(), FRAMES * 16_384);
    }
}

#[tokio::test]
async fn a_request_without_a_message_needs_no_room() {
    let (channel, mut wire, _up) = wire_with(0).await;
    let (response, ()) = tokio::join!(call(&channel, Body::empty()), async {
        let head = wire.next(HEADERS).await;
        assert_eq!(head.flags & END_STREAM, END_STREAM);
        wire.send(HEADERS, END_HEADERS | END_STREAM, head.stream, UNIMPLEMENTED).await;
    });
    assert_eq!(status(&response), Code::Unimplemented);
}

/// There are 2³⁰ of them.
#[tokio::test]
async fn when_the_numbers_of_streams_are_used_up_there_is_another_connection() {
    let (channel, mut wire, (listener, _fleet)) = wire().await;
    // The library takes a stream that others depend on for one that was there, and the next for the one after it.
    wire.send(PRIORITY, 0, 0x7fff_ffff, &[0x7f, 0xff, 0xff, 0xff, 0]).await;
    wire.is_quiet().await;
    let calls = [(); 2].map(|()| {
        let channel = channel.clone();
        tokio::spawn(async move {
            let wait = |request: &mut tonic::Request<_>| {
                request.extensions_mut().insert(waypost_channel::WaitForReady(true));
            };
            crate::support::check_with(&channel, wait).await
        })
    });
    let mut next = Wire::accept(&listener).await;
    for _ in &calls {
        let stream = next.next(HEADERS).await.stream;
        next.send(HEADERS, END_HEADERS | END_STREAM, stream, UNIMPLEMENTED).await;
    }
    for call in calls {
        assert_eq!(within(call).await.unwrap().unwrap_err().code(), Code::Unimplemented);
    }
    // The old one closes, since nobody has a call on it.
    drop(wire);
}

/// As servers say good-bye: first that they will, then what they have taken.
#[tokio::test]
async fn a_call_that_the_last_goaway_leaves_out_is_made_on_the_next_connection() {
    let (channel, mut wire, (listener, _fleet)) = wire().await;
    let calls = [(); 2].map(|()| {
        let channel = channel.clone();
        tokio::spawn(async move { check(&channel).await })
    });
    assert_eq!((wire.next(HEADERS).await.stream, wire.next(HEADERS).await.stream), (1, 3));
    let last = |stream: u32| [&stream.to_be_bytes()[..], &[0; 4]].concat();
    wire.send(GOAWAY, 0, 0, &last(0x7fff_ffff)).await;
    let mut next = Wire::accept(&listener).await;
    wire.send(GOAWAY, 0, 0, &last(1)).await;
    assert_eq!(next.next(HEADERS).await.stream, 1);
    next.send(HEADERS, END_HEADERS | END_STREAM, 1, UNIMPLEMENTED).await;
    wire.send(HEADERS, END_HEADERS | END_STREAM, 1, UNIMPLEMENTED).await;
    for call in calls {
        assert_eq!(within(call).await.unwrap().unwrap_err().code(), Code::Unimplemented);
    }
    next.is_quiet().await;
}

/// As details of a status may be.
#[tokio::test]
async fn headers_of_many_kilobytes_are_taken() {
    let (channel, mut wire, _up) = wire().await;
    let (answer, ()) = tokio::join!(check(&channel), async {
        let stream = wire.next(HEADERS).await.stream;
        let field = [&b"\x00\x01x\x7f\xa1\x9b\x01"[..], &vec![b'y'; 20_000]].concat();
        let block = [UNIMPLEMENTED, &field].concat();
        let (first, second) = block.split_at(16_384);
        wire.send(HEADERS, END_STREAM, stream, first).await;
        wire.send(CONTINUATION, END_HEADERS, stream, second).await;
    });
    let error = answer.unwrap_err();
    assert_eq!((error.code(), error.metadata().get("x").unwrap().len()), (Code::Unimplemented, 20_000));
    lives(&channel, &mut wire).await;
}

#[tokio::test]
async fn headers_that_are_too_large_fail_their_call_and_say_so() {
    let (channel, mut wire, _up) = wire().await;
    let (answer, ()) = tokio::join!(check(&channel), async {
        let stream = wire.next(HEADERS).await.stream;
        // Each counts as 34 bytes.
        let block = [OK, &b"\x00\x01x\x01y".repeat(31_000)].concat();
        let mut pieces = block.chunks(1 + 5 * 3_000).peekable();
        let (mut kind, mut flags) = (HEADERS, END_STREAM);
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            wire.send(kind, flags | last, stream, piece).await;
            (kind, flags) = (CONTINUATION, 0);
        }
    });
    let error = answer.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(error.message().contains("headers above 1 MiB"), "{error}");
    lives(&channel, &mut wire).await;
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

#[tokio::test]
async fn what_of_trailers_http2_does_not_take_is_left_out() {
    let server = Server::healthy().await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).build();
    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("connection", "close".parse().unwrap());
        trailers.insert("te", "gzip".parse().unwrap());
        Ok::<_, Status>(Frame::trailers(trailers))
    };
    let data = || Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0")));
    for frames in [vec![trailers()], vec![data(), trailers()], vec![data(), data(), trailers()]] {
        let response = call(&channel, Body::new(StreamBody::new(stream::iter(frames)))).await;
        let body = within(response.into_body().collect()).await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    }
}

fn panics() -> Status {
    panic!("as what makes a request may")
}

#[tokio::test]
async fn a_request_that_cannot_be_made_ends_its_call() {
    let (channel, mut wire, _up) = wire().await;
    let go = signal();
    let broken = stream::once({
        let go = Arc::clone(&go);
        async move {
            go.notified().await;
            Err::<Frame<Bytes>, Status>(panics())
        }
    });
    let (response, stream) = tokio::join!(call(&channel, Body::new(StreamBody::new(broken))), async {
        let stream = wire.next(HEADERS).await.stream;
        go.notify_one();
        assert_eq!(wire.next(RST_STREAM).await.stream, stream);
        stream
    });
    assert_eq!((status(&response), stream), (Code::Internal, 1));
    lives(&channel, &mut wire).await;
}

/// However much of the answer is there by then, and though its reader keeps it.
#[tokio::test]
async fn the_deadline_holds_for_a_server_that_is_faster_than_its_reader() {
    let (channel, mut wire, _up) = wire().await;
    let (response, stream) = tokio::join!(call(&channel, Body::empty()), async {
        let stream = wire.next(HEADERS).await.stream;
        wire.send(HEADERS, END_HEADERS, stream, OK).await;
        stream
    });
    wire.send_all(&frame(DATA, 0, stream, &[0; 5]).repeat(3)).await;
    lives(&channel, &mut wire).await;
    let mut body = response.into_body();
    assert!(within(body.frame()).await.unwrap().is_ok());
    tokio::time::pause();
    tokio::time::advance(DEADLINE).await;
    let late = body.frame().await.unwrap().unwrap_err();
    tokio::time::resume();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(wire.next(RST_STREAM).await.stream, stream);
    assert!(within(body.frame()).await.is_none());
}

#[tokio::test]
async fn the_end_of_a_request_needs_no_room() {
    let (channel, mut wire, _up) = wire_with(5).await;
    let (messages, body) = unbounded::<Result<Frame<Bytes>, Status>>();
    let (response, ()) = tokio::join!(call(&channel, Body::new(StreamBody::new(body))), async {
        let stream = wire.next(HEADERS).await.stream;
        messages.unbounded_send(Ok(Frame::data(Bytes::from_static(&[0; 5])))).unwrap();
        assert_eq!(wire.next(DATA).await.flags, 0);
        messages.close_channel();
        assert_eq!(wire.next(DATA).await.flags, END_STREAM);
        wire.send(HEADERS, END_HEADERS | END_STREAM, stream, UNIMPLEMENTED).await;
    });
    assert_eq!(status(&response), Code::Unimplemented);
}

/// A server that has got a part of a request may still begin to answer.
#[tokio::test]
async fn a_hedge_that_was_cut_off_does_not_get_the_call() {
    let ((reading, first), (full, second)) = (listen().await, listen().await);
    let (_fleet, subscription) = Fleet::with([instance(0, first.clone()), instance(1, second)]);
    let config: ServiceConfig = r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 2,
        "hedgingDelay": "0s"}}]}"#
        .parse()
        .unwrap();
    let policy = RetryPolicy::default().with_limits(5, 0);
    let channel = builder(subscription).service_config(config).retry(policy).build();
    let (mut reading, mut full) = tokio::join!(Wire::accept(&reading), Wire::accept_with(&full, 0));
    ready(&channel, 2).await;
    let (messages, body) = unbounded::<Result<Frame<Bytes>, Status>>();
    let more = || messages.unbounded_send(Ok(Frame::data(Bytes::from_static(&[0; 5])))).unwrap();
    let (response, ()) = tokio::join!(call(&channel, Body::new(StreamBody::new(body))), async {
        let (stream, cut_off) = (reading.next(HEADERS).await.stream, full.next(HEADERS).await.stream);
        // The second is not kept: it is for the one that reads.
        for _ in 0..2 {
            more();
            reading.next(DATA).await;
        }
        full.send(HEADERS, END_HEADERS, cut_off, OK).await;
        full.next(RST_STREAM).await;
        more();
        reading.next(DATA).await;
        reading.send(HEADERS, END_HEADERS | END_STREAM, stream, UNIMPLEMENTED).await;
    });
    assert_eq!(response.extensions().get::<EndpointInfo>().unwrap().endpoint(), &first);
    assert_eq!(status(&response), Code::Unimplemented);
}

//! A server that takes a few requests at a time, and what becomes of those that wait for their turn.

use crate::support::wire::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, GOOD, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, OK,
    RST_STREAM, UNIMPLEMENTED, Wire, listen,
};
use crate::support::{Fleet, Server, builder, busy, check, instance, ready, send, served_by, within};
use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckResponse;
use waypost_channel::Channel;
use waypost_model::Endpoint;

/// Takes one request at a time. Tells how many it has seen; answers each when it is told to, or closes all when it is dropped.
struct OneByOne {
    endpoint: Endpoint,
    seen: watch::Receiver<usize>,
    answer: Arc<Notify>,
    close: Arc<Notify>,
}

impl OneByOne {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        let (seen, requests) = watch::channel(0);
        let (answer, close) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (may_answer, must_close) = (Arc::clone(&answer), Arc::clone(&close));
        tokio::spawn(async move {
            // It listens once.
            let (stream, _) = { listener }.accept().await.unwrap();
            let mut server = h2::server::Builder::new();
            let mut connection = server.max_concurrent_streams(1).handshake(stream).await.unwrap();
            let mut open = None;
            loop {
                tokio::select! {
                    () = must_close.notified() => return,
                    Some(Ok((_request, respond))) = connection.accept() => {
                        seen.send_modify(|count| *count += 1);
                        open = Some(respond);
                    }
                    () = may_answer.notified(), if open.is_some() => {
                        let mut respond: h2::server::SendResponse<bytes::Bytes> = open.take().unwrap();
                        let answer = http::Response::builder().header("grpc-status", "12").body(()).unwrap();
                        respond.send_response(answer, true).unwrap();
                    }
                }
            }
        });
        Self { endpoint, seen: requests, answer, close }
    }

    async fn has_seen(&mut self, count: usize) {
        within(self.seen.wait_for(|seen| *seen >= count)).await.unwrap();
    }
}

#[tokio::test]
async fn each_call_has_its_turn() {
    let mut server = OneByOne::start().await;
    let (_fleet, subscription) = Fleet::with([instance(0, server.endpoint.clone())]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { check(&channel).await })
        })
        .collect();
    for turn in 1..=5 {
        server.has_seen(turn).await;
        assert_eq!(*server.seen.borrow(), turn);
        server.answer.notify_one();
    }
    for call in calls {
        assert_eq!(within(call).await.unwrap().unwrap_err().code(), Code::Unimplemented);
    }
}

/// Though none is idempotent: of those that wait the server has not seen a byte.
#[tokio::test]
async fn calls_that_still_wait_when_the_connection_is_lost_go_elsewhere() {
    let mut server = OneByOne::start().await;
    let (fleet, subscription) = Fleet::with([instance(0, server.endpoint.clone())]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let call = || {
        let channel = channel.clone();
        tokio::spawn(async move { check(&channel).await })
    };
    let first = call();
    server.has_seen(1).await;
    let others = [call(), call(), call()];
    busy(&channel, 4).await;
    let good = Server::healthy().await;
    fleet.put(instance(1, good.endpoint()));
    ready(&channel, 2).await;
    server.close.notify_one();
    assert_eq!(within(first).await.unwrap().unwrap_err().code(), Code::Unavailable);
    for other in others {
        assert_eq!(served_by(&within(other).await.unwrap().unwrap()), 1);
    }
    assert_eq!((*server.seen.borrow(), good.calls()), (1, 3));
}

type Call = JoinHandle<Result<Response<HealthCheckResponse>, Status>>;

/// A channel to a server of frames that takes so many requests at a time.
async fn limited(limit: u32) -> (Channel, Wire, Fleet) {
    let (listener, endpoint) = listen().await;
    let (fleet, subscription) = Fleet::with([instance(0, endpoint)]);
    let channel = builder(subscription).keepalive(None).build();
    let wire = Wire::accept_set(&listener, (MAX_CONCURRENT_STREAMS, limit)).await;
    ready(&channel, 1).await;
    (channel, wire, fleet)
}

/// A call that has been sent, or waits for that.
async fn begun(channel: &Channel) -> Call {
    let before = channel.stats().in_flight();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    busy(channel, before + 1).await;
    call
}

/// The server begins the response, and ends it.
async fn end(wire: &mut Wire, stream: u32) {
    wire.send(HEADERS, END_HEADERS, stream, OK).await;
    wire.send(HEADERS, END_HEADERS | END_STREAM, stream, GOOD).await;
}

/// The next request is answered, and its caller learns that.
async fn serve(wire: &mut Wire, call: Call) {
    let stream = wire.next(HEADERS).await.stream;
    answer(wire, stream).await;
    is_answered(call).await;
}

async fn answer(wire: &mut Wire, stream: u32) {
    wire.send(HEADERS, END_HEADERS | END_STREAM, stream, UNIMPLEMENTED).await;
}

async fn is_answered(call: Call) {
    assert_eq!(within(call).await.unwrap().unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn calls_have_their_turns_in_the_order_in_which_they_came() {
    const CALLS: usize = 6;
    let (channel, mut wire, _fleet) = limited(1).await;
    let ended = Arc::new(Mutex::new(Vec::new()));
    let mut calls = Vec::new();
    for number in 0..CALLS {
        let (call, ended) = (begun(&channel).await, Arc::clone(&ended));
        calls.push(tokio::spawn(async move {
            is_answered(call).await;
            ended.lock().unwrap().push(number);
        }));
    }
    for _ in 0..CALLS {
        let stream = wire.next(HEADERS).await.stream;
        wire.is_quiet().await;
        answer(&mut wire, stream).await;
    }
    for call in calls {
        within(call).await.unwrap();
    }
    assert_eq!(*ended.lock().unwrap(), (0..CALLS).collect::<Vec<_>>());
    assert_eq!(channel.stats().in_flight(), 0);
}

/// Of a request, to see when it is gone.
struct Owned(Arc<[u8; 5]>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &*self.0
    }
}

#[tokio::test]
async fn a_call_whose_deadline_passes_before_its_turn_leaves_nothing_behind() {
    let (channel, mut wire, _fleet) = limited(1).await;
    let first = begun(&channel).await;
    let stream = wire.next(HEADERS).await.stream;
    let bytes = Arc::new([0; 5]);
    let body = Body::new(Full::new(Bytes::from_owner(Owned(Arc::clone(&bytes)))));
    let late = http::Request::post("/a.B/C").header("grpc-timeout", "20m").body(body).unwrap();
    let response = send(&channel, late).await;
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("no more than 1 calls at a time"), "{status}");
    assert_eq!((Arc::strong_count(&bytes), channel.stats().in_flight()), (1, 1));
    answer(&mut wire, stream).await;
    is_answered(first).await;
    // Nor does the server ever see it.
    let next = begun(&channel).await;
    let after = wire.next(HEADERS).await.stream;
    assert_eq!(after, stream + 2);
    answer(&mut wire, after).await;
    is_answered(next).await;
}

#[tokio::test]
async fn a_server_may_change_how_many_calls_it_takes() {
    let (channel, mut wire, _fleet) = limited(0).await;
    let (first, second) = (begun(&channel).await, begun(&channel).await);
    wire.is_quiet().await;
    wire.set((MAX_CONCURRENT_STREAMS, 1)).await;
    assert_eq!(wire.next(HEADERS).await.stream, 1);
    wire.is_quiet().await;
    wire.set((MAX_CONCURRENT_STREAMS, 2)).await;
    assert_eq!(wire.next(HEADERS).await.stream, 3);
    wire.set((MAX_CONCURRENT_STREAMS, 1)).await;
    wire.is_quiet().await;
    let third = begun(&channel).await;
    answer(&mut wire, 1).await;
    is_answered(first).await;
    wire.is_quiet().await;
    answer(&mut wire, 3).await;
    is_answered(second).await;
    assert_eq!(wire.next(HEADERS).await.stream, 5);
    answer(&mut wire, 5).await;
    is_answered(third).await;
}

#[tokio::test]
async fn calls_that_wait_at_a_server_that_leaves_go_elsewhere() {
    let (channel, mut wire, fleet) = limited(1).await;
    let first = begun(&channel).await;
    let stream = wire.next(HEADERS).await.stream;
    let others = [begun(&channel).await, begun(&channel).await];
    let good = Server::healthy().await;
    fleet.put(instance(1, good.endpoint()));
    ready(&channel, 2).await;
    // As a server says first that shuts down: no call is excluded yet.
    wire.send(GOAWAY, 0, 0, &[127, 255, 255, 255, 0, 0, 0, 0]).await;
    for other in others {
        assert_eq!(served_by(&within(other).await.unwrap().unwrap()), 1);
    }
    answer(&mut wire, stream).await;
    is_answered(first).await;
    assert_eq!(good.calls(), 2);
}

/// Or whoever keeps what it has not read could wait for ever for its next call.
#[tokio::test]
async fn a_response_that_has_ended_has_no_place_whether_or_not_it_was_read() {
    let (channel, mut wire, _fleet) = limited(1).await;
    let mut kept = Vec::new();
    for read in [false, true] {
        let request = http::Request::post("/a.B/C").body(Body::empty()).unwrap();
        let (mut response, ()) = tokio::join!(send(&channel, request), async {
            let stream = wire.next(HEADERS).await.stream;
            wire.send(HEADERS, END_HEADERS, stream, OK).await;
            wire.send(DATA, 0, stream, &[0; 5]).await;
            wire.send(HEADERS, END_HEADERS | END_STREAM, stream, GOOD).await;
        });
        if read {
            let body = within(response.body_mut().collect()).await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        }
        kept.push(response);
        let next = begun(&channel).await;
        serve(&mut wire, next).await;
    }
}

/// A call whose request does not end.
fn endless() -> http::Request<Body> {
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
    http::Request::post("/a.B/C").body(Body::new(body)).unwrap()
}

/// The server ends the response, and goes on to read.
async fn answered_early(channel: &Channel, wire: &mut Wire) -> http::Response<Body> {
    let (response, ()) = tokio::join!(send(channel, endless()), async {
        let stream = wire.next(HEADERS).await.stream;
        end(wire, stream).await;
    });
    response
}

/// To the HTTP library it is under way for as long as its request is: whoever got its place would wait there, and could not give up.
#[tokio::test]
async fn a_call_has_its_place_while_its_request_goes_on() {
    let (channel, mut wire, _fleet) = limited(1).await;
    let response = answered_early(&channel, &mut wire).await;
    wire.is_quiet().await;
    let given_up = begun(&channel).await;
    wire.is_quiet().await;
    given_up.abort();
    assert!(within(given_up).await.unwrap_err().is_cancelled());
    drop(response);
    let next = begun(&channel).await;
    // Of the one that was given up there is nothing.
    assert_eq!(wire.next(HEADERS).await.stream, 3);
    wire.is_quiet().await;
    answer(&mut wire, 3).await;
    is_answered(next).await;
}

#[tokio::test]
async fn a_request_ends_when_the_response_has_been_read() {
    let (channel, mut wire, _fleet) = limited(1).await;
    let mut response = answered_early(&channel, &mut wire).await;
    let body = within(response.body_mut().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    let next = begun(&channel).await;
    serve(&mut wire, next).await;
    assert!(within(response.body_mut().frame()).await.is_none());
}

/// It may have all that it wants, and gives no room for the rest, which is in memory here.
#[tokio::test]
async fn a_server_that_answers_before_it_has_read_the_request_takes_the_next() {
    let (channel, mut wire, _fleet) = limited(1).await;
    wire.set((INITIAL_WINDOW_SIZE, 0)).await;
    wire.is_quiet().await;
    for turn in 0..3 {
        let call = begun(&channel).await;
        let stream = wire.next(HEADERS).await.stream;
        assert_eq!(stream, 2 * turn + 1);
        answer(&mut wire, stream).await;
        is_answered(call).await;
        assert_eq!(wire.next(RST_STREAM).await.stream, stream);
    }
}

/// It keeps the response of the first, whose request is in memory as long as that is not read.
#[tokio::test]
async fn a_call_that_is_given_up_in_the_librarys_queue_leaves_no_request_behind() {
    let (channel, mut wire, _fleet) = limited(1).await;
    wire.set((INITIAL_WINDOW_SIZE, 0)).await;
    wire.is_quiet().await;
    let request = || {
        let body = Body::new(Full::new(Bytes::from_static(&[0; 5])));
        http::Request::post("/a.B/C").body(body).unwrap()
    };
    let (response, ()) = tokio::join!(send(&channel, request()), async {
        let stream = wire.next(HEADERS).await.stream;
        end(&mut wire, stream).await;
    });
    let given_up = begun(&channel).await;
    wire.is_quiet().await;
    given_up.abort();
    assert!(within(given_up).await.unwrap_err().is_cancelled());
    drop(response);
    assert_eq!(wire.next(RST_STREAM).await.stream, 1);
    let next = begun(&channel).await;
    // Of the one that was given up at most what opens its stream, and ends it.
    let mut stream = wire.next(HEADERS).await.stream;
    if stream == 3 {
        assert_eq!(wire.next(RST_STREAM).await.stream, 3);
        stream = wire.next(HEADERS).await.stream;
    }
    answer(&mut wire, stream).await;
    is_answered(next).await;
}

/// So it is where a message that was made later is larger than the room that there was.
#[tokio::test]
async fn what_is_left_of_a_message_keeps_no_place() {
    let (channel, mut wire, _fleet) = limited(1).await;
    wire.set((INITIAL_WINDOW_SIZE, 1)).await;
    wire.is_quiet().await;
    let (messages, body) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, Status>>();
    let request = http::Request::post("/a.B/C").body(Body::new(StreamBody::new(body))).unwrap();
    let (response, ()) = tokio::join!(send(&channel, request), async {
        let stream = wire.next(HEADERS).await.stream;
        messages.unbounded_send(Ok(Frame::data(Bytes::from_static(&[0; 5])))).unwrap();
        messages.close_channel();
        wire.next(DATA).await;
        wire.is_quiet().await;
        end(&mut wire, stream).await;
    });
    within(response.into_body().collect()).await.unwrap();
    assert_eq!(wire.next(RST_STREAM).await.stream, 1);
    let next = begun(&channel).await;
    assert_eq!(wire.next(HEADERS).await.stream, 3);
    answer(&mut wire, 3).await;
    is_answered(next).await;
}

/// Nor does the one that lost its race come to it later.
#[tokio::test]
async fn a_hedge_waits_for_its_turn_and_leaves_when_another_has_answered() {
    let ((one, first), (other, second)) = (listen().await, listen().await);
    let (_fleet, subscription) = Fleet::with([instance(0, first), instance(1, second)]);
    let channel = builder(subscription).keepalive(None).build();
    let (mut one, mut other) = tokio::join!(
        Wire::accept_set(&one, (MAX_CONCURRENT_STREAMS, 1)),
        Wire::accept_set(&other, (MAX_CONCURRENT_STREAMS, 1)),
    );
    ready(&channel, 2).await;
    let before = [begun(&channel).await, begun(&channel).await];
    tokio::join!(one.next(HEADERS), other.next(HEADERS));
    let config =
        r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 2, "hedgingDelay": "0s"}}]}"#;
    channel.set_service_config(Some(config.parse().unwrap()));
    let hedged = begun(&channel).await;
    busy(&channel, 4).await;
    one.is_quiet().await;
    other.is_quiet().await;
    answer(&mut one, 1).await;
    let stream = one.next(HEADERS).await.stream;
    answer(&mut one, stream).await;
    is_answered(hedged).await;
    answer(&mut other, 1).await;
    for call in before {
        is_answered(call).await;
    }
    other.is_quiet().await;
    assert_eq!(channel.stats().in_flight(), 0);
}

#[tokio::test]
async fn a_call_that_waits_fails_when_the_runtime_of_the_channel_ends() {
    let (listener, endpoint) = listen().await;
    let (_fleet, subscription) = Fleet::with([instance(0, endpoint)]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let channel = {
        let _entered = runtime.enter();
        builder(subscription).keepalive(None).build()
    };
    let mut wire = Wire::accept_set(&listener, (MAX_CONCURRENT_STREAMS, 0)).await;
    ready(&channel, 1).await;
    let call = begun(&channel).await;
    wire.is_quiet().await;
    runtime.shutdown_background();
    let status = within(call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

/// Each gives up when the server has answered so many, and so many turns of the runtime have passed.
#[tokio::test]
async fn calls_that_are_given_up_at_any_point_keep_no_place() {
    const CALLS: usize = 300;
    let (channel, mut wire, _fleet) = limited(3).await;
    let (answered, _) = watch::channel(0);
    let mut random = fastrand::Rng::with_seed(1);
    let calls: Vec<_> = (0..CALLS)
        .map(|number| {
            let (channel, mut answered) = (channel.clone(), answered.subscribe());
            let (answers, turns) = (random.usize(0..60), random.usize(0..20));
            tokio::spawn(async move {
                let gives_up = async {
                    let _ = answered.wait_for(|answered| *answered >= answers).await;
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                };
                // The last are not given up: they end only if there is a place for them.
                tokio::select! {
                    answer = check(&channel) => Some(answer),
                    () = gives_up, if number < CALLS - 10 => None,
                }
            })
        })
        .collect();
    let serve = async {
        loop {
            let stream = wire.next(HEADERS).await.stream;
            answer(&mut wire, stream).await;
            answered.send_modify(|answered| *answered += 1);
        }
    };
    let all = async {
        let mut given_up = 0;
        for call in calls {
            match call.await.unwrap() {
                Some(answer) => assert_eq!(answer.unwrap_err().code(), Code::Unimplemented),
                None => given_up += 1,
            }
        }
        given_up
    };
    let given_up = tokio::select! {
        given_up = within(all) => given_up,
        () = serve => unreachable!(),
    };
    // Nearly all of those whose turn was late; of the others those whose answers came first.
    assert!((100..CALLS - 10).contains(&given_up), "{given_up}");
    assert_eq!(channel.stats().in_flight(), 0);
}

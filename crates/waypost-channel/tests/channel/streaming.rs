//! Requests that are still being made while they are sent: what is kept of them, and when they are sent again.

use crate::support::answers::{self, handler};
use crate::support::{Fleet, Server, builder, check, check_idempotent, instance, ready, signal, within};
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use waypost_channel::{Channel, EndpointInfo, RetryPolicy, ServiceConfig};

type Messages = UnboundedSender<Result<Frame<Bytes>, Status>>;
/// What servers have got of requests that came to their end.
type Received = Arc<Mutex<Vec<Bytes>>>;

/// Bytes of a message with three.
const ONE: usize = 8;
const RETRIED: &str = r#"{"methodConfig": [{"name": [{"service": "test.Uploads"}], "retryPolicy": {"maxAttempts": 3,
    "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;

fn message(content: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(content.len()).unwrap().to_be_bytes(), content].concat().into()
}

fn send(messages: &Messages, content: &[u8]) {
    messages.unbounded_send(Ok(Frame::data(message(content)))).expect("somebody reads");
}

/// A call with a stream of messages.
fn upload(channel: &Channel) -> (Messages, impl Future<Output = Response<Body>> + 'static) {
    let (messages, receiver) = unbounded();
    let mut request = Request::new(Body::new(StreamBody::new(receiver)));
    *request.uri_mut() = "/test.Uploads/Put".parse().unwrap();
    *request.method_mut() = http::Method::POST;
    (messages, crate::support::send(channel, request))
}

/// The status of a call that has ended.
async fn status(response: Response<Body>) -> (Code, String) {
    let told = Status::from_header_map(response.headers());
    let told = match told {
        Some(status) => status,
        None => match within(response.into_body().collect()).await {
            Ok(body) => Status::from_header_map(body.trailers().expect("a gRPC server")).expect("a status"),
            Err(status) => status,
        },
    };
    (told.code(), told.message().to_owned())
}

fn attempts(response: &Response<Body>) -> u32 {
    response.extensions().get::<EndpointInfo>().expect("an endpoint has answered").attempts()
}

/// Fails calls that it is told to fail, by their number from 0 on, once so many bytes of them have come; takes all of the others.
async fn failing(which: Range<usize>, after: usize, received: &Received) -> Server {
    let (received, calls) = (Arc::clone(received), AtomicUsize::new(0));
    Server::start(handler(move |request, _| {
        let (received, number) = (Arc::clone(&received), calls.fetch_add(1, Ordering::Relaxed));
        let fails = which.contains(&number);
        async move {
            let (mut body, mut got) = (request.into_body(), Vec::new());
            while !(fails && got.len() >= after)
                && let Some(Ok(frame)) = body.frame().await
            {
                got.extend_from_slice(frame.data_ref().expect("no trailers"));
            }
            if fails {
                return answers::in_headers(Code::Unavailable);
            }
            received.lock().unwrap().push(got.into());
            answers::ok()
        }
    }))
    .await
}

async fn channel_to(servers: &[&Server], config: &str) -> (Fleet, Channel) {
    channel_with(servers, config, RetryPolicy::default()).await
}

async fn channel_with(servers: &[&Server], config: &str, policy: RetryPolicy) -> (Fleet, Channel) {
    let (fleet, subscription) = Fleet::of(servers);
    let config = config.parse::<ServiceConfig>().unwrap();
    let channel = builder(subscription).service_config(config).retry(policy).build();
    ready(&channel, servers.len()).await;
    (fleet, channel)
}

#[tokio::test]
async fn what_was_sent_is_sent_again_and_then_what_comes_later() {
    let received = Received::default();
    let server = failing(0..2, ONE, &received).await;
    let (_fleet, channel) = channel_to(&[&server], RETRIED).await;
    let (messages, answer) = upload(&channel);
    let call = tokio::spawn(answer);
    send(&messages, b"one");
    server.called(2).await;
    send(&messages, b"two");
    server.called(3).await;
    send(&messages, b"six");
    drop(messages);
    let response = within(call).await.unwrap();
    assert_eq!(attempts(&response), 3);
    assert_eq!(status(response).await.0, Code::Ok);
    let whole: Bytes = [message(b"one"), message(b"two"), message(b"six")].concat().into();
    assert_eq!(*received.lock().unwrap(), [whole]);
}

#[tokio::test]
async fn what_is_larger_than_what_is_kept_is_sent_once() {
    let received = Received::default();
    let policy = RetryPolicy::default;
    for (policy, calls) in [
        (policy().with_limits(2 * ONE - 1, 0), 1),
        (policy().with_streams_limit(2 * ONE - 1), 1),
        (policy().with_limits(2 * ONE, 0).with_streams_limit(2 * ONE), 2),
    ] {
        let server = failing(0..1, 2 * ONE, &received).await;
        let (_fleet, channel) = channel_with(&[&server], RETRIED, policy).await;
        let (messages, answer) = upload(&channel);
        let call = tokio::spawn(answer);
        send(&messages, b"one");
        send(&messages, b"two");
        server.called(calls).await;
        drop(messages);
        let code = status(within(call).await.unwrap()).await.0;
        assert_eq!(code, if calls == 1 { Code::Unavailable } else { Code::Ok }, "{policy:?}");
        assert_eq!(server.calls(), calls, "{policy:?}");
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_commits_the_call() {
    let mut servers = Vec::new();
    for _ in 0..2 {
        let dying = handler(|_, kill| async move { answers::dies_before_trailers(kill) });
        servers.push(Server::start(dying).await);
    }
    let (_fleet, channel) = channel_to(&[&servers[0], &servers[1]], RETRIED).await;
    let (messages, answer) = upload(&channel);
    send(&messages, b"one");
    assert_eq!(status(answer.await).await.0, Code::Unavailable);
    assert_eq!(servers[0].calls() + servers[1].calls(), 1);
}

/// Whatever the config says: a server that refuses a stream has not looked at it.
#[tokio::test]
async fn what_a_server_refuses_after_a_part_of_it_was_sent_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_fleet, subscription) = Fleet::with([instance(0, listener.local_addr().unwrap().into())]);
    let server = tokio::spawn(async move {
        let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
        let mut taken = None;
        for turn in 0..3 {
            let Some(Ok((request, mut respond))) = connection.accept().await else { return taken };
            let mut body = request.into_body();
            let answered = tokio::spawn(async move {
                let mut got = Vec::new();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    got.extend_from_slice(&data);
                    if turn < 2 {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        return got;
                    }
                }
                let answer = Response::builder().header("grpc-status", "0").body(()).unwrap();
                respond.send_response(answer, true).unwrap();
                got
            });
            // What drives the connection.
            let mut answered = std::pin::pin!(answered);
            taken = tokio::select! {
                got = &mut answered => got.ok(),
                _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => None,
            };
        }
        let _ = std::future::poll_fn(|cx| connection.poll_closed(cx)).await;
        taken
    });
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let (messages, answer) = upload(&channel);
    let call = tokio::spawn(answer);
    send(&messages, b"one");
    within(async {
        while channel.call_stats().unprocessed < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    send(&messages, b"two");
    drop(messages);
    assert_eq!(status(within(call).await.unwrap()).await.0, Code::Ok);
    drop(channel);
    let whole = [message(b"one"), message(b"two")].concat();
    assert_eq!(within(server).await.unwrap(), Some(whole));
}

#[tokio::test]
async fn a_caller_that_cannot_go_on_is_told_its_own_error_and_the_endpoint_is_not_blamed() {
    let (more, received) = (signal(), Received::default());
    let answering = {
        let more = Arc::clone(&more);
        Server::start(handler(move |_, _| {
            let more = Arc::clone(&more);
            async move { answers::two_messages(more) }
        }))
        .await
    };
    let waiting = failing(0..0, 0, &received).await;
    for server in [&answering, &waiting] {
        let (_fleet, channel) = channel_to(&[server], RETRIED).await;
        let (messages, answer) = upload(&channel);
        let call = tokio::spawn(answer);
        send(&messages, b"one");
        server.called(1).await;
        messages.unbounded_send(Err(Status::aborted("no more paper"))).unwrap();
        let told = status(within(call).await.unwrap()).await;
        assert_eq!(told, (Code::Aborted, "no more paper".to_owned()));
        assert_eq!((server.calls(), failures(&channel)), (1, 0));
    }
    assert!(received.lock().unwrap().is_empty() || received.lock().unwrap()[0] == message(b"one"));
}

#[tokio::test]
async fn a_caller_learns_that_its_stream_is_not_wanted_any_more() {
    // It has said all that it has to say, and reads nothing.
    let server = Server::start(handler(|_, _| async { answers::ok() })).await;
    let (_fleet, channel) = channel_to(&[&server], RETRIED).await;
    let (messages, answer) = upload(&channel);
    send(&messages, b"one");
    let response = answer.await;
    within(async {
        while !messages.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(status(response).await.0, Code::Ok);
}

#[tokio::test]
async fn messages_of_requests_are_only_so_long() {
    let received = Received::default();
    let server = failing(0..0, 0, &received).await;
    let limited =
        r#"{"methodConfig": [{"name": [{"service": "test.Uploads"}], "maxRequestMessageBytes": 5}]}"#;
    let (_fleet, channel) = channel_to(&[&server], limited).await;
    let (messages, answer) = upload(&channel);
    let call = tokio::spawn(answer);
    send(&messages, b"12345");
    server.called(1).await;
    send(&messages, b"123456");
    let (code, text) = status(within(call).await.unwrap()).await;
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.contains("a message of 6 bytes") && text.contains("allows 5"), "{text}");
    assert_eq!(failures(&channel), 0);

    // What is there at once is not even sent.
    let mut request = Request::new(Body::new(http_body_util::Full::new(message(b"123456"))));
    *request.uri_mut() = "/test.Uploads/Put".parse().unwrap();
    let response = crate::support::send(&channel, request).await;
    assert_eq!(status(response).await.0, Code::ResourceExhausted);
    assert_eq!(server.calls(), 1);
}

/// `SERVING` takes two bytes; so both limits are met or missed by one.
#[tokio::test]
async fn messages_of_answers_are_only_so_long_and_the_lower_limit_holds() {
    let config = |bytes: u32| {
        let name = r#"[{"service": "grpc.health.v1.Health"}]"#;
        format!(r#"{{"methodConfig": [{{"name": {name}, "maxResponseMessageBytes": {bytes}}}]}}"#)
            .parse::<ServiceConfig>()
            .unwrap()
    };
    let server = Server::healthy().await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).max_response_message_bytes(2).build();
    for (limit, good) in [(2, true), (1, false), (3, true)] {
        channel.set_service_config(config(limit));
        for answer in [check(&channel).await, check_idempotent(&channel).await] {
            let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_eq!(code, if good { Code::Ok } else { Code::ResourceExhausted }, "{limit}");
        }
    }
    assert_eq!((server.calls(), failures(&channel)), (6, 0), "nothing is tried again, and nobody to blame");
}

#[tokio::test]
async fn of_a_stream_of_answers_all_come_before_the_one_that_is_too_long() {
    let server = Server::start(handler(|_, _| async {
        let both = [message(b"12345"), message(b"123456")].concat();
        answers::response([Frame::data(both.into()), answers::trailers(Code::Ok)])
    }))
    .await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).max_response_message_bytes(5).build();
    let (messages, answer) = upload(&channel);
    drop(messages);
    let mut body = answer.await.into_body();
    let first = within(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, message(b"12345"));
    let error = within(body.frame()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(
        error.message().contains("greeter") && error.message().contains("a message of 6 bytes"),
        "{error}"
    );
    assert!(within(body.frame()).await.is_none());
    within(channel.wait_for(|stats| stats.in_flight() == 0)).await;
}

/// Tells of every part of a request, and answers when it has come to its end and there is a permit for it.
async fn telling(got: &watch::Sender<Vec<u8>>, answers: &Arc<Semaphore>) -> Server {
    let (got, answers) = (got.clone(), Arc::clone(answers));
    Server::start(handler(move |request, _| {
        let (got, answers) = (got.clone(), Arc::clone(&answers));
        async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                got.send_modify(|got| got.extend_from_slice(frame.data_ref().expect("no trailers")));
            }
            answers.acquire().await.expect("it is never closed").forget();
            answers::in_headers(Code::Ok)
        }
    }))
    .await
}

const HEDGED: &str = r#"{"methodConfig": [{"name": [{"service": "test.Uploads"}], "hedgingPolicy": {"maxAttempts": 2,
    "hedgingDelay": "0s"}}]}"#;

#[tokio::test]
async fn a_stream_is_hedged_and_each_attempt_gets_all_of_it() {
    let got = [watch::Sender::default(), watch::Sender::default()];
    let (quick, never) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(0)));
    let servers = [telling(&got[0], &quick).await, telling(&got[1], &never).await];
    let (_fleet, channel) = channel_to(&[&servers[0], &servers[1]], HEDGED).await;
    let (messages, answer) = upload(&channel);
    let call = tokio::spawn(answer);
    let mut sent = Vec::new();
    for content in [&b"one"[..], b"two", b"three"] {
        send(&messages, content);
        sent.extend_from_slice(&message(content));
        for got in &got {
            within(got.subscribe().wait_for(|got| *got == sent)).await.unwrap();
        }
    }
    drop(messages);
    let response = within(call).await.unwrap();
    let by =
        response.extensions().get::<EndpointInfo>().expect("an endpoint has answered").endpoint().clone();
    assert_eq!((status(response).await.0, by), (Code::Ok, servers[0].endpoint()));
    within(channel.wait_for(|stats| stats.in_flight() == 0)).await;
    assert_eq!((failures(&channel), channel.call_stats().hedges), (0, 1));
}

/// Then one of the attempts has it, and the call goes on there.
#[tokio::test]
async fn a_hedged_stream_that_is_larger_than_what_is_kept_goes_on_at_one_endpoint() {
    let got = [watch::Sender::default(), watch::Sender::default()];
    let answers = Arc::new(Semaphore::new(100));
    let servers = [telling(&got[0], &answers).await, telling(&got[1], &answers).await];
    let policy = RetryPolicy::default().with_limits(ONE, 0);
    let (_fleet, channel) = channel_with(&[&servers[0], &servers[1]], HEDGED, policy).await;
    for _ in 0..10 {
        for got in &got {
            got.send_replace(Vec::new());
        }
        let (messages, answer) = upload(&channel);
        let call = tokio::spawn(answer);
        send(&messages, b"one");
        for got in &got {
            within(got.subscribe().wait_for(|got| got.len() == ONE)).await.unwrap();
        }
        send(&messages, b"two");
        send(&messages, b"six");
        drop(messages);
        let response = within(call).await.unwrap();
        let by = usize::from(
            response.extensions().get::<EndpointInfo>().unwrap().endpoint() == &servers[1].endpoint(),
        );
        assert_eq!(status(response).await.0, Code::Ok);
        assert_eq!(*got[by].borrow(), [message(b"one"), message(b"two"), message(b"six")].concat());
        assert_eq!(*got[1 - by].borrow(), message(b"one"));
        within(channel.wait_for(|stats| stats.in_flight() == 0)).await;
    }
    assert_eq!(failures(&channel), 0);
}

/// Streams that are made slowly, to servers of which one is killed and started again, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_survive_servers_that_are_killed() {
    const MESSAGES: [&[u8]; 6] = [b"one", b"two", b"three", b"four", b"five", b"six"];
    let checking = || {
        handler(async |request: Request<_>, _| {
            // A part that ended well would be the worst of all.
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            answers::in_headers(match body {
                Ok(body) if *body == MESSAGES.map(message).concat() => Code::Ok,
                Ok(_) => Code::DataLoss,
                Err(_) => Code::Cancelled,
            })
        })
    };
    let (stable, mut mortal) = (Server::start(checking()).await, Server::start(checking()).await);
    let (_fleet, channel) = channel_to(&[&stable, &mortal], RETRIED).await;
    let stop = CancellationToken::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (channel, stop) = (channel.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let (messages, answer) = upload(&channel);
                    let answer = tokio::spawn(answer);
                    for content in MESSAGES {
                        send(&messages, content);
                        tokio::task::yield_now().await;
                    }
                    drop(messages);
                    assert_eq!(status(answer.await.unwrap()).await, (Code::Ok, String::new()));
                }
            })
        })
        .collect();
    for round in 1..=10 {
        mortal.called(round * 10).await;
        mortal.kill().await;
        mortal.restart().await;
        ready(&channel, 2).await;
    }
    stop.cancel();
    for caller in callers {
        within(caller).await.unwrap();
    }
    let calls = channel.call_stats();
    assert!(calls.retries + calls.unprocessed > 0, "{calls:?}");
}

fn failures(channel: &Channel) -> u64 {
    channel.stats().endpoints.iter().map(|endpoint| endpoint.failures).sum()
}

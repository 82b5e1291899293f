//! Plain HTTP over the pool: the module of the example `http`, against servers that answer, fail and are gone.

#[path = "../../examples/http/pages.rs"]
mod pages;

use crate::support::{Fleet, builder, instance, refused, within};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pages::Pages;
use std::collections::BTreeSet;
use std::convert::Infallible;
use tokio::net::TcpListener;
use waypost_channel::{EndpointStatus, Policy};
use waypost_model::Endpoint;

/// A plain HTTP/1 server that answers every request with this status and its own address.
async fn serve(status: StatusCode) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = service_fn(move |_: Request<hyper::body::Incoming>| async move {
                let body = Full::new(Bytes::from(address.to_string()));
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            });
            // A client may hang up when it likes.
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    format!("http://{address}").parse().unwrap()
}

#[tokio::test]
async fn pages_come_from_the_servers_that_work() {
    let (good, other) = (serve(StatusCode::OK).await, serve(StatusCode::OK).await);
    let (broken, dead) = (serve(StatusCode::BAD_GATEWAY).await, refused());
    let (fleet, subscription) = Fleet::unread();
    let all = [&good, &broken, &dead, &other];
    fleet.change(all.iter().enumerate().map(|(id, endpoint)| instance(id, (*endpoint).clone())), []);
    let pages = Pages::new(builder(subscription).policy(Policy::round_robin()));

    let mut answered = BTreeSet::new();
    for call in 0..200 {
        let page = within(pages.get(&format!("/{call}"))).await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        answered.insert(String::from_utf8(page.body().to_vec()).unwrap());
    }
    assert_eq!(answered, BTreeSet::from([good.authority(), other.authority()]));
    // The detector lets one go by its cap; the other fails on, and every one of its calls went elsewhere.
    let stats =
        within(pages.pool().wait_for(|stats| {
            stats.endpoints.iter().any(|endpoint| endpoint.state == EndpointStatus::Ejected)
        }))
        .await;
    for endpoint in &stats.endpoints {
        let bad = [&broken, &dead].into_iter().any(|bad| *bad == endpoint.endpoint);
        assert_eq!(endpoint.failures > 0, bad, "{endpoint:?}");
    }
}

#[tokio::test]
async fn a_page_is_always_fetched_from_the_same_server() {
    let (fleet, subscription) = Fleet::unread();
    let servers = [serve(StatusCode::OK).await, serve(StatusCode::OK).await, serve(StatusCode::OK).await];
    fleet.change(servers.into_iter().enumerate().map(|(id, endpoint)| instance(id, endpoint)), []);
    let pages = Pages::new(builder(subscription).policy(Policy::maglev()));
    within(pages.pool().wait_for(|stats| stats.ready() == 3)).await;

    let mut answered = BTreeSet::new();
    for page in 0..20 {
        let path = format!("/{page}");
        let first = within(pages.get(&path)).await.unwrap().into_body();
        assert_eq!(within(pages.get(&path)).await.unwrap().into_body(), first);
        answered.insert(first);
    }
    assert!(answered.len() > 1);
}

#[tokio::test]
async fn when_nobody_is_registered_it_says_so() {
    let (fleet, subscription) = Fleet::unread();
    fleet.change([], []);
    let error = within(Pages::new(builder(subscription)).get("/")).await.unwrap_err();
    assert!(error.to_string().starts_with("greeter: no instance is registered"), "{error}");
}

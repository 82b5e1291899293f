//! What is asked without gRPC and without JSON: how the server is, and what.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;
use tonic::body::Body;
use waypost_proto::etcdserverpb::AlarmType;

use super::engine::{Engine, lock};
use super::{gateway, metrics};
use crate::error::Refusal;

/// How long the writer may take before the server counts as ill. As long as etcd waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers a request that is not gRPC.
pub(super) async fn answer(engine: &Engine, request: &Parts) -> Response<Body> {
    if request.uri.path() != "/version" {
        return answer_metrics(engine, request).await;
    }
    if request.method != Method::GET {
        return only("GET");
    }
    let version = json!({
        "etcdserver": super::VERSION,
        "etcdcluster": super::STORAGE_VERSION,
        "storage": super::STORAGE_VERSION,
        "server": super::PRODUCT,
    });
    json(StatusCode::OK, &version)
}

/// Answers a request about how the server is, and nothing else.
pub(super) async fn answer_metrics(engine: &Engine, request: &Parts) -> Response<Body> {
    let path = request.uri.path();
    if gateway::is_below(path) {
        return text(StatusCode::NOT_FOUND, "Not Found\n");
    }
    if !matches!(path, "/health" | "/livez" | "/metrics" | "/readyz") {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    if request.method != Method::GET {
        return only("GET");
    }
    let query = request.uri.query().unwrap_or_default();
    match path {
        "/health" => health(engine, query).await,
        "/readyz" => ready(engine, query).await,
        "/metrics" => match metrics::scrape(engine).await {
            Ok(page) => respond(StatusCode::OK, metrics::CONTENT_TYPE, page),
            Err(refusal) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{}\n", refusal.message())),
        },
        _ => text(StatusCode::OK, "ok\n"),
    }
}

/// Refuses every method but this.
pub(super) fn only(method: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// `exclude=NOSPACE` passes over an alarm; `serializable=true` does not ask the writer.
async fn health(engine: &Engine, query: &str) -> Response<Body> {
    let tallies = &engine.shared.tallies;
    let reason = match alarm(engine, query) {
        Some(name) => Some(format!("ALARM {name}")),
        None if asks(query, "serializable=true") => None,
        None => writes(engine).await.err().map(|refusal| format!("QGET ERROR:{}", refusal.message())),
    };
    if let Some(reason) = reason {
        tallies.unhealthy.inc();
        return json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "health": "false", "reason": reason }));
    }
    tallies.healthy.inc();
    json(StatusCode::OK, &json!({ "health": "true", "reason": "" }))
}

/// Whether requests can be taken; `verbose` tells each check, as etcd 3.6 does.
async fn ready(engine: &Engine, query: &str) -> Response<Body> {
    let corrupt = lock(&engine.shared.alarms).corrupt().then(|| "alarm CORRUPT is on".to_owned());
    let stuck = writes(engine).await.err().map(|refusal| refusal.message().into_owned());
    let checks = [("data_corruption", corrupt), ("serializable_read", None), ("linearizable_read", stuck)];
    let good = checks.iter().all(|(_, trouble)| trouble.is_none());
    let lines = checks.map(|(check, trouble)| match trouble {
        None => format!("[+]{check} ok\n"),
        Some(trouble) => format!("[-]{check} failed: {trouble}\n"),
    });
    let lines = lines.concat();
    match (good, asks(query, "verbose")) {
        (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, &lines),
        (true, true) => text(StatusCode::OK, &format!("{lines}ok\n")),
        (true, false) => text(StatusCode::OK, "ok\n"),
    }
}

/// An alarm that is on and not passed over.
fn alarm(engine: &Engine, query: &str) -> Option<&'static str> {
    let names = lock(&engine.shared.alarms)
        .list(0)
        .into_iter()
        .map(|alarm| AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name()));
    names.into_iter().find(|name| !query.split('&').any(|pair| pair.strip_prefix("exclude=") == Some(name)))
}

fn asks(query: &str, what: &str) -> bool {
    query.split('&').any(|pair| pair == what || pair.strip_suffix('=') == Some(what))
}

/// Whether the writer gets to do something.
async fn writes(engine: &Engine) -> Result<(), Refusal> {
    let nothing = engine.write(0, |_| Ok(()));
    tokio::time::timeout(PATIENCE, nothing).await.unwrap_or(Err(Refusal::TimedOut))
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    respond(status, "application/json", body.to_string())
}

pub(super) fn text(status: StatusCode, body: &str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", body.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(bytes::Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

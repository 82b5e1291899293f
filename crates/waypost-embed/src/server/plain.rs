//! What is asked without gRPC: health and version.

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;
use tonic::body::Body;
use waypost_proto::etcdserverpb::AlarmType;

use super::engine::{Engine, lock};

/// Answers a request that is not gRPC.
pub(super) fn answer<B>(engine: &Engine, request: &Request<B>) -> Response<Body> {
    let path = request.uri().path();
    if !matches!(path, "/health" | "/livez" | "/readyz" | "/version") {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    if request.method() != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/health" => health(engine, request.uri().query().unwrap_or_default()),
        "/version" => json(
            StatusCode::OK,
            &json!({
                "etcdserver": super::VERSION,
                "etcdcluster": super::STORAGE_VERSION,
                "storage": super::STORAGE_VERSION,
                "server": super::PRODUCT,
            }),
        ),
        _ => text(StatusCode::OK, "ok\n"),
    }
}

/// `exclude=NOSPACE` passes over an alarm.
fn health(engine: &Engine, query: &str) -> Response<Body> {
    let excluded: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("exclude=")).collect();
    for alarm in lock(&engine.shared.alarms).list(0) {
        let name = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
        if !excluded.contains(&name) {
            let reason = format!("ALARM {name}");
            return json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "health": "false", "reason": reason }));
        }
    }
    json(StatusCode::OK, &json!({ "health": "true", "reason": "" }))
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    respond(status, "application/json", body.to_string())
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", body.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(bytes::Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

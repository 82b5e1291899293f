//! etcd's JSON gateway: every gRPC method as a POST below `/v3`, as etcd 3.5 has it.
//!
//! Nothing here knows any message: what a method takes and gives is read from the descriptors of the protocol, and calls go
//! to the same services as gRPC's. Bytes are base64, 64-bit integers strings (numbers are accepted), names those of the
//! `.proto` files (lowerCamelCase is accepted), defaults are left out. Streams take JSON documents one after another and
//! give a line `{"result":…}` for each message.
//!
//! Rules and texts: grpc-gateway 1, by asking etcd 3.5.1.

mod frames;
mod message;
mod scan;
mod stream;
mod table;
pub(super) mod websocket;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use prost_reflect::MethodDescriptor;
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};

use self::message::{first, from_json, to_json};
use super::front::Front;
use super::tls::Peer;

/// What a body of JSON may have for each byte of the largest message: base64, names, space.
const JSON_FACTOR: usize = 2;

/// Prefix of headers that are passed on as metadata, without it.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// The method that a path names.
pub(super) fn method(path: &str) -> Option<&'static MethodDescriptor> {
    table::METHODS.get(below(path)?)
}

/// Whether a path is one of the gateway's, be it there or not.
pub(super) fn is_below(path: &str) -> bool {
    below(path).is_some()
}

fn below(path: &str) -> Option<&str> {
    path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))
}

/// Every method, with its service.
pub(super) fn methods() -> impl Iterator<Item = (&'static str, &'static str)> {
    table::PATHS.into_iter().map(|(_, service, method)| (service, method))
}

/// Calls a method.
pub(super) async fn call<B>(
    front: Front,
    method: &'static MethodDescriptor,
    request: Request<B>,
) -> Response<Body>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let (parts, body) = request.into_parts();
    let limit = front.message_limit().saturating_mul(JSON_FACTOR);
    let outcome = if method.is_client_streaming() || method.is_server_streaming() {
        stream::call(front, method, &parts.headers, body, limit).await
    } else {
        unary(front, method, &parts.headers, body, limit).await
    };
    outcome.unwrap_or_else(|status| refusal(&status))
}

async fn unary<B>(
    front: Front,
    method: &MethodDescriptor,
    headers: &HeaderMap,
    body: B,
    limit: usize,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let malformed = |error: String| Status::invalid_argument(error);
    let read = Limited::new(body, limit).collect().await;
    let body = read.map_err(|error| malformed(error.to_string()))?.to_bytes();
    let message = match first(&body).map_err(malformed)? {
        Some((value, _)) => from_json(method.input(), value).map_err(malformed)?,
        None => bytes::Bytes::new(),
    };
    let body = Body::new(Full::new(frames::frame(&message)));
    let response = front.grpc(to_grpc(method, headers, body)).await;
    refused(response.headers())?;
    let answer = response.into_body().collect().await?;
    if let Some(trailers) = answer.trailers() {
        refused(trailers)?;
    }
    let mut bytes = bytes::BytesMut::from(answer.to_bytes());
    let message = frames::next(&mut bytes).ok_or_else(|| Status::internal("there was no answer"))?;
    let json = to_json(method.output(), message).map_err(Status::internal)?;
    Ok(respond(StatusCode::OK, Body::new(Full::new(json.into()))))
}

/// A call as gRPC has it.
fn to_grpc(method: &MethodDescriptor, headers: &HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    // Names of services and methods are what a path may have.
    *request.uri_mut() = path.parse().unwrap_or_default();
    let metadata = request.headers_mut();
    metadata.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(TE, HeaderValue::from_static("trailers"));
    for (name, value) in headers {
        let passed = if name == AUTHORIZATION { Some(name.clone()) } else { passed_on(name) };
        if let Some(name) = passed {
            metadata.append(name, value.clone());
        }
    }
    // As in etcd, a certificate makes nobody a user here.
    Peer::default().mark(metadata);
    request
}

fn passed_on(name: &HeaderName) -> Option<HeaderName> {
    let name = name.as_str().strip_prefix(METADATA_PREFIX)?;
    let reserved = name.starts_with("grpc-") || matches!(name, "content-type" | "te");
    if reserved { None } else { name.parse().ok() }
}

/// What a call was refused with, according to headers or trailers.
fn refused(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

fn refusal(status: &Status) -> Response<Body> {
    let (message, code) = (status.message(), i32::from(status.code()));
    let json = json!({ "error": message, "code": code, "message": message });
    respond(http_status(status.code()), Body::new(Full::new(json.to_string().into())))
}

fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What grpc-gateway makes of a code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_metadata_are_passed_on_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "token"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-waypost-common-name", "root"),
            ("waypost-common-name", "root"),
            ("grpc-metadata-grpc-timeout", "1n"),
            ("host", "here"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let request = to_grpc(method("/v3/kv/put").unwrap(), &headers, Body::empty());
        assert_eq!(request.uri().path(), "/etcdserverpb.KV/Put");
        let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-type", "hasleader", "te"]);
    }
}

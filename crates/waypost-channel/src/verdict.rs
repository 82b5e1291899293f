//! What an answer, or an error in its place, says: of the call, and of the endpoint.

use crate::exchange::Severed;
use crate::http2::chain;
use crate::line::is_users;
use h2::Reason;
use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};
use waypost_balance::Outcome;

/// gRPC's translation of the status that a proxy answers with, which is no gRPC server and has no status of gRPC; `None` where that is
/// still to come.
pub(crate) fn code_of_http(status: StatusCode) -> Option<Code> {
    match status {
        StatusCode::OK => None,
        StatusCode::BAD_REQUEST => Some(Code::Internal),
        StatusCode::UNAUTHORIZED => Some(Code::Unauthenticated),
        StatusCode::FORBIDDEN => Some(Code::PermissionDenied),
        StatusCode::NOT_FOUND => Some(Code::Unimplemented),
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Some(Code::Unavailable),
        _ => Some(Code::Unknown),
    }
}

/// The status in `grpc-status`: of trailers, or of headers that are all there is.
pub(crate) fn code_of_trailers(trailers: &HeaderMap) -> Option<Code> {
    trailers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// What a status says of the endpoint: whether it could not do its work. Codes that tell the caller of its own mistake are work
/// done; so are `UNKNOWN`, which is what frameworks make of an error that an application returns (grpc-go does of every plain
/// `error`), and `RESOURCE_EXHAUSTED`, which is a quota of the caller's more often than a server that is full.
pub(crate) fn outcome(code: Code) -> Outcome {
    match code {
        Code::Unavailable | Code::Internal | Code::DataLoss | Code::DeadlineExceeded => Outcome::Failed,
        Code::Cancelled => Outcome::Cancelled,
        _ => Outcome::Ok,
    }
}

/// Whether the server says that it has not processed the request: `REFUSED_STREAM`, or a `GOAWAY` that excludes it.
pub(crate) fn is_refusal(error: &Severed) -> bool {
    let Severed::Http2(error) = error else { return false };
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// gRPC's translation of an HTTP/2 error; `context` names service, endpoint and attempt.
pub(crate) fn status_of(error: &Severed, context: &str) -> Status {
    let h2 = match error {
        Severed::Http2(error) => Some(error),
        Severed::Silent(_) | Severed::Left => None,
    };
    let reset = h2.filter(|error| error.is_reset()).and_then(h2::Error::reason);
    let code = match reset {
        // Not a reset of the stream: the connection is gone.
        None if h2.is_some_and(is_users) => Code::Internal,
        None | Some(Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(_) => Code::Internal,
    };
    let what = match (reset, code) {
        (Some(_), _) if h2.is_some_and(h2::Error::is_library) => {
            "its response is no HTTP/2, or has headers above 1 MiB"
        }
        (Some(_), _) => "the server reset the call",
        (None, Code::Internal) => "the request cannot be sent",
        (None, _) => "connection lost",
    };
    Status::new(code, format!("{context}: {what}: {}", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_status_is_read_or_translated() {
        let mut headers = HeaderMap::new();
        assert_eq!((code_of_http(StatusCode::OK), code_of_trailers(&headers)), (None, None));
        assert_eq!(code_of_http(StatusCode::BAD_GATEWAY), Some(Code::Unavailable));
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        assert_eq!(code_of_trailers(&headers), Some(Code::NotFound));
        headers.insert("grpc-status", HeaderValue::from_static("many"));
        assert_eq!(code_of_trailers(&headers), Some(Code::Unknown));
    }

    #[test]
    fn a_callers_mistake_is_not_held_against_the_endpoint() {
        for code in [Code::Ok, Code::NotFound, Code::InvalidArgument, Code::Unimplemented, Code::Unknown] {
            assert_eq!(outcome(code), Outcome::Ok);
        }
        assert_eq!(outcome(Code::Unavailable), Outcome::Failed);
        assert_eq!(outcome(Code::Cancelled), Outcome::Cancelled);
    }
}

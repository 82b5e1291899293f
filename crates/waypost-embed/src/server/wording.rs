//! Errors that the gRPC library reports by itself, in the words that etcd's uses.

use http::{HeaderValue, Response};
use tonic::{Code, Status};

use crate::error::Refusal;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// Replaces what the library says of a message that is too large, and of a method that does not exist.
pub(super) fn as_etcd_says<B>(mut response: Response<B>, path: &str) -> Response<B> {
    let Some(said) = Status::from_header_map(response.headers()) else { return response };
    let status = match said.code() {
        Code::OutOfRange => too_large(said.message()).map(|refusal| super::status(&refusal)),
        Code::Unimplemented if said.message().is_empty() => Some(unknown(path)),
        _ => None,
    };
    let Some(status) = status else { return response };
    let headers = response.headers_mut();
    headers.remove(STATUS);
    headers.remove(MESSAGE);
    if status.add_header(headers).is_err() {
        headers.insert(STATUS, HeaderValue::from_static("2"));
    }
    response
}

/// `Error, decoded message length too large: found N bytes, the limit is: M bytes`
fn too_large(message: &str) -> Option<Refusal> {
    let numbers = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (size, limit) = numbers.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some(Refusal::MessageTooLarge { size: size.parse().ok()?, limit: limit.parse().ok()? })
}

fn unknown(path: &str) -> Status {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    if super::service::NAMES.contains(&service) {
        super::status(&Refusal::UnknownMethod { method: method.to_owned(), service: service.to_owned() })
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: &Status) -> Response<()> {
        let mut response = Response::new(());
        status.add_header(response.headers_mut()).unwrap();
        response
    }

    #[test]
    fn a_message_that_is_too_large_is_reported_as_by_go() {
        let library =
            "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes";
        let response = as_etcd_says(said(&Status::out_of_range(library)), "/etcdserverpb.KV/Put");
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (3000000 vs. 2097152)");
    }

    #[test]
    fn an_unknown_method_is_named() {
        let response = as_etcd_says(said(&Status::unimplemented("")), "/etcdserverpb.KV/Rage");
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.message(), "unknown method Rage for service etcdserverpb.KV");
    }

    #[test]
    fn an_unknown_service_is_named() {
        let response = as_etcd_says(said(&Status::unimplemented("")), "/etcdserverpb.Queue/Push");
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.message(), "unknown service etcdserverpb.Queue");
    }

    #[test]
    fn what_the_server_says_itself_stays() {
        let compacted = super::super::status(&Refusal::Compacted);
        let response = as_etcd_says(said(&compacted), "/etcdserverpb.KV/Range");
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, compacted.message()));
    }
}

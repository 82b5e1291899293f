//! Which method is called with what: as the server's reflection describes it.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::stream;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use tonic::{Code, Request, Status};
use tonic_reflection::pb;
use waypost::channel::{Channel, Idempotent};

use crate::args::UsageError;

/// A method, and the message that it is called with.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) path: PathAndQuery,
    pub(crate) message: Bytes,
    /// What its answers are, if that is known.
    answer: Option<MessageDescriptor>,
}

/// The name of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MethodName {
    service: String,
    method: String,
}

/// What reflection is asked for.
#[derive(Clone)]
enum Wanted {
    Symbol(String),
    File(String),
}

const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Files are asked for one by one; no service is described by more.
const MOST_FILES: usize = 1000;

// === impl MethodName ===

/// `package.Service/Method`, or with a dot before the method, as `grpcurl` takes them.
pub(crate) fn parse_method(text: &str) -> Result<MethodName, String> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let parts = name.split_once('/').or_else(|| name.rsplit_once('.'));
    match parts {
        Some((service, method)) if !service.is_empty() && !method.is_empty() && !method.contains('/') => {
            Ok(MethodName { service: service.to_owned(), method: method.to_owned() })
        }
        _ => Err(format!("{text:?} is no method: write package.Service/Method")),
    }
}

// === impl Target ===

impl Target {
    /// `grpc.health.v1.Health/Check` of the server as a whole.
    pub(crate) fn health() -> Self {
        Self { path: PathAndQuery::from_static(HEALTH), message: Bytes::new(), answer: None }
    }

    /// A method that a server behind `channel` describes, with a message in JSON.
    pub(crate) async fn reflected(channel: &Channel, name: &MethodName, json: &str) -> anyhow::Result<Self> {
        let method = describe(channel, name).await?;
        ensure!(
            !method.is_client_streaming() && !method.is_server_streaming(),
            UsageError(format!("{} is a streaming method; `call` makes unary calls", method.full_name()))
        );
        let mut reader = serde_json::Deserializer::from_str(json);
        let input = method.input();
        let wrong = |error: &serde_json::Error| {
            UsageError(format!("--data is no {} in JSON: {error}", input.full_name()))
        };
        let message =
            DynamicMessage::deserialize(input.clone(), &mut reader).map_err(|error| wrong(&error))?;
        reader.end().map_err(|error| wrong(&error))?;
        Ok(Self {
            path: PathAndQuery::try_from(format!("/{}/{}", name.service, name.method))
                .context("the name of the method")?,
            message: message.encode_to_vec().into(),
            answer: Some(method.output()),
        })
    }

    /// An answer in JSON, where that is known.
    pub(super) fn shown(&self, answer: &Bytes) -> Option<serde_json::Value> {
        let message = DynamicMessage::decode(self.answer.clone()?, answer.clone()).ok()?;
        serde_json::to_value(&message).ok()
    }
}

/// Asks for the service, and for every file that its file needs.
async fn describe(channel: &Channel, name: &MethodName) -> anyhow::Result<MethodDescriptor> {
    let mut pool = DescriptorPool::new();
    let mut files: Vec<FileDescriptorProto> = Vec::new();
    let mut asked = BTreeSet::new();
    let mut wanted = vec![Wanted::Symbol(name.service.clone())];
    while let Some(next) = wanted.pop() {
        ensure!(
            files.len() < MOST_FILES,
            "service {} is described by more than {MOST_FILES} files",
            name.service
        );
        for bytes in reflect(channel, &next).await? {
            let file = FileDescriptorProto::decode(bytes.as_slice())
                .context("what the server's reflection has answered is no description")?;
            if files.iter().any(|known| known.name() == file.name()) {
                continue;
            }
            asked.insert(file.name().to_owned());
            files.push(file);
        }
        // Some servers send what a file needs along with it.
        let needed = files.iter().flat_map(|file| &file.dependency);
        let missing: Vec<String> = needed.filter(|file| !asked.contains(*file)).cloned().collect();
        for file in missing {
            if asked.insert(file.clone()) {
                wanted.push(Wanted::File(file));
            }
        }
    }
    pool.add_file_descriptor_protos(files)
        .context("the description of the service does not hold together")?;
    let service = pool
        .get_service_by_name(&name.service)
        .with_context(|| format!("the server does not describe service {}", name.service))?;
    let found = service.methods().find(|method| method.name() == name.method);
    let Some(method) = found else {
        let known: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
        bail!(UsageError(format!(
            "service {} has no method {}: it has {}",
            name.service,
            name.method,
            known.join(", ")
        )));
    };
    Ok(method)
}

/// By version 1 of the protocol, and by its predecessor where the server has only that.
async fn reflect(channel: &Channel, wanted: &Wanted) -> anyhow::Result<Vec<Vec<u8>>> {
    let answer = match v1(channel, wanted).await {
        Err(status) if status.code() == Code::Unimplemented => v1alpha(channel, wanted).await,
        answer => answer,
    };
    let what = match wanted {
        Wanted::Symbol(name) | Wanted::File(name) => name,
    };
    answer.map_err(|status| {
        let hint = match status.code() {
            Code::Unimplemented => {
                "; the server does not serve reflection, without which only its health can be called"
            }
            _ => "",
        };
        anyhow::anyhow!("asking for a description of {what}: {:?}: {}{hint}", status.code(), status.message())
    })
}

macro_rules! reflection {
    ($version:ident) => {
        async fn $version(channel: &Channel, wanted: &Wanted) -> Result<Vec<Vec<u8>>, Status> {
            use pb::$version::server_reflection_client::ServerReflectionClient;
            use pb::$version::server_reflection_request::MessageRequest;
            use pb::$version::server_reflection_response::MessageResponse;

            let message_request = match wanted.clone() {
                Wanted::Symbol(name) => MessageRequest::FileContainingSymbol(name),
                Wanted::File(name) => MessageRequest::FileByFilename(name),
            };
            let question = pb::$version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message_request),
            };
            let mut request = Request::new(stream::iter([question]));
            request.extensions_mut().insert(Idempotent);
            let mut client = ServerReflectionClient::new(channel.clone());
            let mut answers = client.server_reflection_info(request).await?.into_inner();
            match answers.message().await?.and_then(|answer| answer.message_response) {
                Some(MessageResponse::FileDescriptorResponse(files)) => Ok(files.file_descriptor_proto),
                Some(MessageResponse::ErrorResponse(error)) => {
                    Err(Status::new(error.error_code.into(), error.error_message))
                }
                _ => Err(Status::internal("the server has answered something else")),
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_with_their_service() {
        let name = |service: &str, method: &str| {
            Ok(MethodName { service: service.to_owned(), method: method.to_owned() })
        };
        assert_eq!(parse_method("a.b.C/M"), name("a.b.C", "M"));
        assert_eq!(parse_method("/a.b.C/M"), name("a.b.C", "M"));
        assert_eq!(parse_method("a.b.C.M"), name("a.b.C", "M"));
        for bad in ["", "M", "/M", "a.C/", "a.C/M/N"] {
            assert!(parse_method(bad).is_err(), "{bad}");
        }
    }
}

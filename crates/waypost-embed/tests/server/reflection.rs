//! gRPC server reflection.

use tokio_stream::StreamExt as _;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};
use tonic_reflection::pb::v1alpha;

use crate::support::Fixture;

fn ask(question: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest { host: String::new(), message_request: Some(question) }
}

#[tokio::test]
async fn services_and_messages_describe_themselves() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("etcdserverpb.KV.Txn".to_owned())),
    ];
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<String> = list.service.into_iter().map(|ServiceResponse { name }| name).collect();
    for expected in
        ["etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
    }
    let described = answers.next().await.unwrap().unwrap().message_response;
    assert!(matches!(described, Some(MessageResponse::FileDescriptorResponse(_))), "{described:?}");

    let mut older = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let question = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let question = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut answers =
        older.server_reflection_info(tokio_stream::iter([question])).await.unwrap().into_inner();
    assert!(answers.next().await.unwrap().unwrap().message_response.is_some());
}

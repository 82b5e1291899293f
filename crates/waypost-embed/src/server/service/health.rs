//! `grpc.health.v1.Health`: the server serves while it runs.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Answer, Service};

#[async_trait]
impl Health for Service {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        match status_of(&request.get_ref().service) {
            ServingStatus::Serving => Ok(Response::new(told(ServingStatus::Serving))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Answer<Self::WatchStream> {
        let (sender, receiver) = mpsc::channel(2);
        let first = told(status_of(&request.get_ref().service));
        let stop = self.stop.clone();
        tokio::spawn(async move {
            if sender.send(Ok(first)).await.is_err() {
                return;
            }
            tokio::select! {
                () = sender.closed() => {}
                () = stop.cancelled() => {
                    // The client may have gone.
                    let _ = sender.try_send(Ok(told(ServingStatus::NotServing)));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The server as a whole has the empty name.
fn status_of(service: &str) -> ServingStatus {
    if service.is_empty() { ServingStatus::Serving } else { ServingStatus::ServiceUnknown }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

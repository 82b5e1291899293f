//! `etcdserverpb.Watch`: one task for each stream, between the client and the hub.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming, async_trait};
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::watch_server::Watch;
use waypost_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};

use super::{Answer, Service};
use crate::error::Refusal;
use crate::server::engine::Follow;
use crate::server::status;

/// Answers between the task and the connection; those that wait in the hub come on top.
const AHEAD: usize = 4;

#[async_trait]
impl Watch for Service {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Answer<Self::WatchStream> {
        let (metadata, _, requests) = request.into_parts();
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(self.clone().serve_watch(metadata, requests, sender));
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }
}

// === impl Service ===

impl Service {
    async fn serve_watch(
        self,
        metadata: MetadataMap,
        mut requests: Streaming<WatchRequest>,
        sender: mpsc::Sender<Result<WatchResponse, Status>>,
    ) {
        let mut follow = Follow::open(&self.engine);
        loop {
            // A full queue has something to send, so that this is looked at again.
            let congested = follow.is_congested();
            let next = async {
                let permit = sender.reserve().await.map_err(|_| None)?;
                let response = follow.next().await.map_err(Some)?;
                Ok::<_, Option<Refusal>>((permit, response))
            };
            let request = tokio::select! {
                () = self.stop.cancelled() => {
                    // The client may have gone, or not read what was sent before.
                    let _ = sender.try_send(Err(status(&Refusal::Stopped)));
                    return;
                }
                next = next => match next {
                    Ok((permit, response)) => {
                        permit.send(Ok(response.to_proto(&self.engine.header_at(response.revision))));
                        continue;
                    }
                    Err(Some(refusal)) => {
                        let _ = sender.send(Err(status(&refusal))).await;
                        return;
                    }
                    Err(None) => return,
                },
                request = requests.message(), if !congested => request,
            };
            // The client is done, or its connection broke.
            let Ok(Some(WatchRequest { request_union })) = request else { return };
            match request_union {
                Some(RequestUnion::CreateRequest(create)) => {
                    follow.create(&create, self.may_watch(&metadata, &create));
                }
                Some(RequestUnion::CancelRequest(cancel)) => follow.cancel(cancel.watch_id),
                Some(RequestUnion::ProgressRequest(_)) => follow.progress(),
                None => {}
            }
        }
    }

    fn may_watch(&self, metadata: &MetadataMap, request: &WatchCreateRequest) -> Result<(), Refusal> {
        let who = self.caller(metadata)?;
        self.engine.policy().may_watch(&who, request)
    }
}

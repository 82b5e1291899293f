//! Who writes, and what becomes of writing when something goes wrong there.

use waypost_proto::etcdserverpb::{PutRequest, PutResponse};

use crate::error::Refusal;
use crate::server::Server;
use crate::server::engine::Desk;
use crate::server::inside::Inside;
use crate::storage::Simulation;

async fn put(server: &Inside) -> Result<PutResponse, tonic::Status> {
    let request = PutRequest { key: "a".into(), value: "x".into(), ..PutRequest::default() };
    server.unary("/etcdserverpb.KV/Put", &request).await
}

#[tokio::test]
async fn after_a_panic_nothing_is_written_any_more_and_nobody_waits() {
    for in_lane in [false, true] {
        let disk = Simulation::new();
        let server = Inside::start(disk.open(), Server::builder()).unwrap();
        // So that the disk is known to be quick.
        for _ in 0..8 {
            put(&server).await.unwrap();
        }
        let engine = if in_lane { server.engine().in_lane() } else { server.engine().clone() };
        // Either thread may be the one that writes.
        let outcome = tokio::spawn(async move {
            let fails =
                |_: &mut Desk<'_>| -> Result<(), _> { panic!("a request that cannot be carried out") };
            engine.write(0, fails).await.map_err(|refusal| refusal.message())
        });
        let outcome = outcome.await;
        assert!(outcome.is_err() || outcome.unwrap() == Err(Refusal::Stopped.message()));
        assert_eq!(put(&server).await.unwrap_err().message(), Refusal::Stopped.message());
        assert_eq!(put(&server).await.unwrap_err().message(), Refusal::Stopped.message());
    }
}

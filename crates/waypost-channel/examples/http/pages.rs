//! Plain HTTP over a pool: hyper's client keeps the connections, the pool says where each request goes.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::error::Error;
use waypost_channel::{ChannelBuilder, HashKey, Outcome, Pool, Unconnected, Wish};

/// The pages of a service that is served by many.
pub(crate) struct Pages {
    pool: Pool<Unconnected>,
    http: Client<HttpConnector, Empty<Bytes>>,
}

/// Servers that are asked for a page at most.
const ATTEMPTS: usize = 3;

// === impl Pages ===

impl Pages {
    /// With the policy and the outlier detection of `builder`. Must be called inside a tokio runtime.
    pub(crate) fn new(builder: ChannelBuilder) -> Self {
        Self { pool: builder.pool(Unconnected), http: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Fetches a page from any server, and from another one when that fails: a page may be fetched twice.
    ///
    /// A server that answers 5xx counts as failed, as one that cannot be reached does; after a few of those it is set aside. Under a
    /// hashing policy a page is always fetched from the same server, which has it in its cache.
    pub(crate) async fn get(&self, path: &str) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
        let mut tried = Vec::new();
        loop {
            let lease = self.pool.lease(Wish::new().tried(&tried).key(HashKey::of(path))).await?;
            let address = lease.endpoint().endpoint().authority();
            let page: Uri = format!("http://{address}{path}").parse()?;
            let answer = self.fetch(page).await;
            let failed =
                answer.as_ref().map_or(true, |answer| answer.status() >= StatusCode::INTERNAL_SERVER_ERROR);
            tried.push(lease.finished(if failed { Outcome::Failed } else { Outcome::Ok }));
            if !failed || tried.len() == ATTEMPTS {
                return answer;
            }
        }
    }

    /// The pool, to look at.
    pub(crate) fn pool(&self) -> &Pool<Unconnected> {
        &self.pool
    }

    async fn fetch(&self, page: Uri) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
        let request = Request::get(page).body(Empty::new())?;
        let (parts, body) = self.http.request(request).await?.into_parts();
        // The attempt is over when the whole page is there.
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }
}

//! Reading a large range in pages, all as of one revision.

use tokio::task::JoinHandle;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::key_range::KeyRange;
use crate::proto::etcdserverpb::RangeResponse;
use crate::proto::mvccpb::KeyValue;
use crate::request::Range;

/// The pages of a range. Every page is read as of the revision of the first one.
///
/// While one page is worked on, the next is already asked for. A page that exceeds the limit of an answer is asked for
/// again with half as many keys.
///
/// ```no_run
/// # async fn example(client: waypost_etcd::Client) -> Result<(), waypost_etcd::Error> {
/// let mut pages = client.pages(waypost_etcd::KeyRange::prefix("services/"), 1000);
/// while let Some(page) = pages.next().await {
///     for kv in page?.kvs {
///         println!("{:?}", kv.key);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pages {
    client: Client,
    size: i64,
    rest: Option<KeyRange>,
    revision: i64,
    asked: Option<Asked>,
}

/// One page of [`Pages`].
#[derive(Clone, Debug)]
pub struct Page {
    /// Keys in ascending order.
    pub kvs: Vec<KeyValue>,
    /// The revision as of which all pages are read: that of the store when the first page was.
    pub revision: i64,
    /// The cluster that answered.
    pub cluster_id: u64,
    /// Whether another page follows.
    pub more: bool,
}

/// A request that is under way; given up when it is dropped.
#[derive(Debug)]
struct Asked(JoinHandle<Result<RangeResponse, Error>>);

// === impl Pages ===

impl Pages {
    pub(crate) fn new(client: Client, range: KeyRange, size: i64) -> Self {
        Self { client, size: size.max(1), rest: Some(range), revision: 0, asked: None }
    }

    /// The next page; `None` after the last one. There is at least one page, which may be empty. After an error
    /// the same page may be asked for again. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Page, Error>> {
        let range = self.rest.clone()?;
        let answer = loop {
            let asked = match &mut self.asked {
                Some(asked) => asked,
                none => none.insert(ask(&self.client, &range, self.size, self.revision)),
            };
            let answer = (&mut asked.0).await;
            self.asked = None;
            match answer {
                Ok(Ok(answer)) => break answer,
                Ok(Err(error)) if error.kind() == ErrorKind::TooLarge && self.size > 1 => self.size /= 2,
                Ok(Err(error)) => return Some(Err(error)),
                // The runtime is shutting down: there is nobody left to answer.
                Err(_) => std::future::pending().await,
            }
        };
        let (revision, cluster_id) =
            answer.header.map_or((0, 0), |header| (header.revision, header.cluster_id));
        if self.revision == 0 {
            self.revision = revision;
        }
        let more = answer.more && !answer.kvs.is_empty();
        self.rest = match answer.kvs.last() {
            Some(last) if more => Some(range.after(&last.key)),
            _ => None,
        };
        self.asked = self.rest.as_ref().map(|rest| ask(&self.client, rest, self.size, self.revision));
        Some(Ok(Page { kvs: answer.kvs, revision: self.revision, cluster_id, more }))
    }
}

fn ask(client: &Client, range: &KeyRange, size: i64, revision: i64) -> Asked {
    let (client, range) = (client.clone(), Range::new(range.clone()).limit(size).revision(revision));
    Asked(tokio::spawn(async move { client.range(range).await }))
}

// === impl Asked ===

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}

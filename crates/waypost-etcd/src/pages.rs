//! Reading a large range in pages, all as of one revision.

use crate::client::Client;
use crate::error::Error;
use crate::key_range::KeyRange;
use crate::proto::mvccpb::KeyValue;
use crate::request::Range;

/// The pages of a range. Every page is read as of the revision of the first one.
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

// === impl Pages ===

impl Pages {
    pub(crate) fn new(client: Client, range: KeyRange, size: i64) -> Self {
        Self { client, size: size.max(1), rest: Some(range), revision: 0 }
    }

    /// The next page; `None` after the last one. There is at least one page, which may be empty. After an error
    /// the same page may be asked for again. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Page, Error>> {
        let range = self.rest.clone()?;
        let request = Range::new(range.clone()).limit(self.size).revision(self.revision);
        let answer = match self.client.range(request).await {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
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
        Some(Ok(Page { kvs: answer.kvs, revision: self.revision, cluster_id, more }))
    }
}

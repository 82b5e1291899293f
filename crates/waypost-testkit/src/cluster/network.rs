//! The network between the nodes of a cluster: one relay before each node, which knows who is calling.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::port::Port;
use crate::proxy::relay::{self, Connection, Policy, Verdict};

/// Who can talk to whom.
#[derive(Debug)]
pub(crate) struct Network {
    cut: watch::Sender<Isolated>,
    relays: Vec<Port>,
}

/// Nodes that reach no other node and are reached by none.
type Isolated = BTreeSet<usize>;

/// The relay before node `to`.
#[derive(Debug)]
struct Rules {
    to: usize,
    /// The peer URL of each node, by which it introduces itself.
    urls: Arc<[String]>,
}

/// A connection to node `to`.
///
/// etcd sends its own peer URLs in a header of every raft request. Until one has come, the connection has carried
/// nothing but probes and is open; from then on it belongs to the link between the two nodes.
#[derive(Debug)]
struct Link {
    to: usize,
    urls: Arc<[String]>,
    from: OnceLock<usize>,
    /// The end of what has come before `from` was known, since a header may be split between two reads.
    seen: Mutex<Vec<u8>>,
}

const HEADER: &[u8] = b"X-PeerURLs: ";
/// Longer than the header with its value.
const KEPT: usize = 256;

// === impl Network ===

impl Network {
    /// Ports for `nodes` relays; nothing listens yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            cut: watch::Sender::new(Isolated::new()),
            relays: (0..nodes).map(|_| Port::reserve()).collect(),
        }
    }

    /// Where the others find a node.
    pub(crate) fn url(&self, node: usize) -> String {
        format!("http://{}", self.relays[node].addr())
    }

    /// Starts the relays to the nodes' own peer ports.
    pub(crate) async fn start(&self, targets: &[SocketAddr]) {
        let urls: Arc<[String]> = (0..self.relays.len()).map(|node| self.url(node)).collect();
        for (to, (relay, target)) in self.relays.iter().zip(targets).enumerate() {
            let (sender, mut listening) = watch::channel(false);
            let rules = Rules { to, urls: Arc::clone(&urls) };
            tokio::spawn(relay::serve(relay.addr(), *target, rules, self.cut.subscribe(), sender));
            let seen = listening.wait_for(|listening| *listening).await;
            assert!(seen.is_ok(), "the relay before node {to} has ended");
        }
    }

    pub(crate) fn isolate(&self, node: usize) {
        self.cut.send_modify(|isolated| {
            isolated.insert(node);
        });
    }

    pub(crate) fn is_isolated(&self, node: usize) -> bool {
        self.cut.borrow().contains(&node)
    }

    pub(crate) fn heal(&self, node: usize) {
        self.cut.send_modify(|isolated| {
            isolated.remove(&node);
        });
    }
}

// === impl Rules ===

impl Policy for Rules {
    type State = Isolated;
    type Connection = Link;

    fn listens(&self, _: &Isolated) -> bool {
        true
    }

    fn admit(&self, _: &Isolated) -> Link {
        Link { to: self.to, urls: Arc::clone(&self.urls), from: OnceLock::new(), seen: Mutex::default() }
    }
}

// === impl Link ===

impl Connection<Isolated> for Link {
    fn verdict(&self, isolated: &Isolated) -> Verdict {
        match self.from.get() {
            Some(from) if isolated.contains(from) || isolated.contains(&self.to) => Verdict::Hold,
            Some(_) | None => Verdict::Flow(Duration::ZERO),
        }
    }

    fn observe(&self, bytes: &[u8]) {
        if self.from.get().is_some() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend_from_slice(bytes);
        if let Some(from) = introduced(&seen).and_then(|url| self.urls.iter().position(|known| known == url))
        {
            // Only this direction observes: nobody else sets it.
            self.from.get_or_init(|| from);
            seen.clear();
        } else {
            let surplus = seen.len().saturating_sub(KEPT);
            seen.drain(..surplus);
        }
    }
}

/// The value of the header, when all of it is there.
fn introduced(bytes: &[u8]) -> Option<&str> {
    let start =
        bytes.windows(HEADER.len()).position(|window| window.eq_ignore_ascii_case(HEADER))? + HEADER.len();
    let length = bytes[start..].iter().position(|byte| *byte == b'\r')?;
    std::str::from_utf8(&bytes[start..start + length]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_cut_once_its_caller_has_introduced_itself_in_two_reads() {
        let urls: Arc<[String]> = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()].into();
        let link = Rules { to: 0, urls }.admit(&Isolated::new());
        let isolated = Isolated::from([1]);
        link.observe(&[b'x'; 2 * KEPT]);
        link.observe(b"POST /raft HTTP/1.1\r\nX-Peer");
        assert_eq!(link.verdict(&isolated), Verdict::Flow(Duration::ZERO));
        link.observe(b"URLs: http://127.0.0.1:2\r\n");
        assert_eq!(link.verdict(&isolated), Verdict::Hold);
        assert_eq!(link.verdict(&Isolated::new()), Verdict::Flow(Duration::ZERO));
    }
}

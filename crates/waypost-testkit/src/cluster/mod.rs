//! An etcd cluster whose nodes can be killed, paused and cut off from each other.

mod network;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::etcd::Place;
use crate::{Etcd, EtcdVersion, Proxy, eventually, http};
use network::Network;

/// A cluster on loopback: every link between nodes, and on demand those of clients, goes through the test.
///
/// Heartbeats are 50 ms and the election timeout is 500 ms: a new leader within about two seconds.
///
/// ```no_run
/// # async fn demo() {
/// use waypost_testkit::{Cluster, EtcdVersion};
///
/// let cluster = Cluster::start(EtcdVersion::V3_5, 3).await;
/// let leader = cluster.leader().await;
/// cluster.partition(leader);
/// assert_ne!(cluster.leader().await, leader);
/// cluster.heal(leader);
/// # }
/// ```
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Etcd>,
    client_proxies: Vec<Proxy>,
    network: Network,
}

/// Options of a [`Cluster`].
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    version: EtcdVersion,
    nodes: usize,
    args: Vec<String>,
    client_proxies: bool,
}

/// A leader and its term, as one node sees it.
type View = (u64, u64);

/// How long a cluster may take to agree on a leader.
const ELECTION: Duration = Duration::from_secs(120);
/// How long one node may take to say who leads; one that is paused never does.
const ANSWER: Duration = Duration::from_millis(500);

// === impl Cluster ===

impl Cluster {
    /// Starts `nodes` nodes and waits until each is healthy.
    pub async fn start(version: EtcdVersion, nodes: usize) -> Self {
        Self::builder(version).nodes(nodes).start().await
    }

    /// Options for a cluster of this version.
    pub fn builder(version: EtcdVersion) -> ClusterBuilder {
        ClusterBuilder { version, nodes: 3, args: Vec::new(), client_proxies: false }
    }

    /// How many nodes it has, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where clients connect, by node: the proxies' URLs if the cluster has them.
    pub fn urls(&self) -> Vec<String> {
        if self.client_proxies.is_empty() {
            self.nodes.iter().map(Etcd::url).collect()
        } else {
            self.client_proxies.iter().map(Proxy::url).collect()
        }
    }

    /// A node; its [`url`](Etcd::url) is where it listens, past any proxy.
    pub fn node(&self, node: usize) -> &Etcd {
        &self.nodes[node]
    }

    /// The proxy before a node's port for clients; panics if [`ClusterBuilder::client_proxies`] was not asked for.
    pub fn client_proxy(&self, node: usize) -> &Proxy {
        &self.client_proxies[node]
    }

    /// Cuts a node off from all others, without their being told. Clients still reach it.
    pub fn partition(&self, node: usize) {
        self.network.isolate(node);
    }

    /// Undoes [`partition`](Self::partition).
    pub fn heal(&self, node: usize) {
        self.network.heal(node);
    }

    /// SIGKILL to a node; returns when its process is gone.
    pub async fn kill(&mut self, node: usize) {
        self.nodes[node].kill().await;
    }

    /// Starts a node again with its data, kills it first if it runs, and waits until it is healthy: the others must
    /// be enough for a majority with it.
    pub async fn restart(&mut self, node: usize) {
        self.nodes[node].restart().await;
    }

    /// Kills the nodes that run, starts all of them and waits until each is healthy.
    pub async fn restart_all(&mut self) {
        for node in &mut self.nodes {
            node.kill().await;
        }
        self.start_all().await;
    }

    /// Makes a new cluster of a snapshot, under the same URLs: kills the nodes that run, restores the snapshot into an empty
    /// data directory of each, starts all of them and waits until each is healthy.
    pub async fn restore_from(&mut self, snapshot: &Path) {
        for node in &mut self.nodes {
            node.prepare_from(snapshot).await;
        }
        self.start_all().await;
    }

    /// SIGSTOP to a node.
    pub async fn pause(&self, node: usize) {
        self.nodes[node].pause().await;
    }

    /// SIGCONT to a node.
    pub fn resume(&self, node: usize) {
        self.nodes[node].resume();
    }

    /// Waits until a majority agrees on a leader that agrees itself, and says which node it is.
    ///
    /// A node that is cut off is neither asked nor counted: it still believes what it last heard.
    pub async fn leader(&self) -> usize {
        eventually("a majority agrees on a leader", ELECTION, async || self.agreed_leader().await).await
    }

    async fn agreed_leader(&self) -> Option<usize> {
        let mut questions = JoinSet::new();
        let reachable =
            |index: &usize| !self.network.is_isolated(*index) && self.nodes[*index].pid().is_some();
        for index in (0..self.nodes.len()).filter(reachable) {
            let node = &self.nodes[index];
            let address = node.authority().parse().expect("an etcd's address is numeric");
            questions.spawn(async move {
                let answer = http::post(address, "/v3/maintenance/status", "{}");
                let answer = tokio::time::timeout(ANSWER, answer).await.ok()?.ok()?;
                let status = serde_json::from_str::<Value>(&answer.body).ok()?;
                let view = (number(&status["leader"])?, number(&status["raftTerm"])?);
                Some((index, number(&status["header"]["member_id"])?, view))
            });
        }
        let answers: Vec<(usize, u64, View)> = questions.join_all().await.into_iter().flatten().collect();
        let mut votes: BTreeMap<View, usize> = BTreeMap::new();
        for (_, _, view) in &answers {
            *votes.entry(*view).or_default() += 1;
        }
        let (view, _) = votes.into_iter().find(|(_, count)| *count > self.nodes.len() / 2)?;
        let (index, _, _) = answers.iter().find(|(_, id, own)| *own == view && *id == view.0)?;
        Some(*index)
    }

    async fn start_all(&mut self) {
        for node in &mut self.nodes {
            node.spawn();
        }
        for node in &mut self.nodes {
            node.settle().await;
        }
    }
}

// === impl ClusterBuilder ===

impl ClusterBuilder {
    /// How many nodes; 3 if not said.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Adds an argument for every node.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Puts a [`Proxy`] before each node's port for clients, which is then also the URL that the node advertises.
    pub fn client_proxies(mut self) -> Self {
        self.client_proxies = true;
        self
    }

    /// Starts the nodes and waits until each is healthy.
    pub async fn start(self) -> Cluster {
        let mut cluster = self.prepare().await;
        cluster.start_all().await;
        cluster
    }

    /// The nodes with their URLs, of which none runs yet: for [`Cluster::restore_from`].
    pub async fn prepare(self) -> Cluster {
        let network = Network::new(self.nodes);
        let name = |node: usize| format!("node{node}");
        let members: Vec<String> =
            (0..self.nodes).map(|node| format!("{}={}", name(node), network.url(node))).collect();
        let mut nodes = Vec::new();
        let mut client_proxies = Vec::new();
        for node in 0..self.nodes {
            let mut builder =
                Etcd::builder(self.version).arg("--heartbeat-interval=50").arg("--election-timeout=500");
            builder.args.extend(self.args.iter().cloned());
            builder.place = Some(Place {
                name: name(node),
                initial_cluster: members.join(","),
                advertised_peer_url: network.url(node),
                advertised_client_url: None,
            });
            let mut etcd = Etcd::prepare(builder);
            if self.client_proxies {
                let proxy = Proxy::start(&etcd.url()).await;
                etcd.advertise_to_clients(proxy.url());
                client_proxies.push(proxy);
            }
            nodes.push(etcd);
        }
        let peers: Vec<_> = nodes.iter().map(Etcd::peer_addr).collect();
        network.start(&peers).await;
        Cluster { nodes, client_proxies, network }
    }
}

/// A 64-bit number as JSON of protocol buffers has it: a string; absent is 0, and etcd has no such id or term.
fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

//! A TCP proxy between a client and a server: a network that can be cut, in every way that networks fail.

pub(crate) mod relay;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use crate::port::Port;
use relay::{Connection, Policy, Verdict};

/// Forwards connections from a loopback port of its own to one target, until told otherwise or dropped.
///
/// Its tasks run on the runtime that [`start`](Self::start) was called on.
///
/// ```no_run
/// # async fn demo() {
/// use waypost_testkit::{Etcd, EtcdVersion, Proxy};
///
/// let etcd = Etcd::start(EtcdVersion::V3_5).await;
/// let proxy = Proxy::start(&etcd.url()).await;
/// // … a client connects to proxy.url() …
/// proxy.blackhole();
/// proxy.restore().await;
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    scheme: String,
    port: Port,
    state: watch::Sender<State>,
    listening: watch::Receiver<bool>,
    counts: watch::Receiver<Counts>,
}

/// How many connections a [`Proxy`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that are open now, held ones included.
    pub open: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
}

#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    /// Connections of an earlier epoch are reset.
    epoch: u64,
    latency: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    Blackhole,
    Refuse,
}

#[derive(Debug)]
struct Rules {
    counts: watch::Sender<Counts>,
}

#[derive(Debug)]
struct Admitted {
    epoch: u64,
    counts: watch::Sender<Counts>,
}

// === impl Proxy ===

impl Proxy {
    /// Starts a proxy to `target`: `127.0.0.1:2379`, with or without a scheme before it. The address is numeric.
    pub async fn start(target: &str) -> Self {
        let (scheme, authority) = target.split_once("://").unwrap_or(("http", target));
        let address = authority.trim_end_matches('/').parse();
        let address = address.unwrap_or_else(|error| panic!("a proxy's target {target}: {error}"));
        Self::start_on(Port::reserve(), scheme, address).await
    }

    async fn start_on(port: Port, scheme: &str, target: SocketAddr) -> Self {
        let (state, receiver) =
            watch::channel(State { mode: Mode::Forward, epoch: 0, latency: Duration::ZERO });
        let (counts_sender, counts) = watch::channel(Counts::default());
        let (listening_sender, listening) = watch::channel(false);
        let rules = Rules { counts: counts_sender };
        tokio::spawn(relay::serve(port.addr(), target, rules, receiver, listening_sender));
        let proxy = Self { scheme: scheme.to_owned(), port, state, listening, counts };
        proxy.is_listening(true).await;
        proxy
    }

    /// Where it listens. The same for its whole life.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Where it listens, with the target's scheme, `http` if it had none.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr())
    }

    /// From now on nothing comes through, and nobody is told: the half-open connection.
    ///
    /// Connections stay open, new ones are accepted, no byte and no end of a stream is passed on. The bytes are not
    /// lost: after [`restore`](Self::restore) they arrive, as those that TCP sends again when a network heals.
    pub fn blackhole(&self) {
        self.state.send_modify(|state| state.mode = Mode::Blackhole);
    }

    /// As when the server's process is gone: connections are reset, new ones are refused by the kernel.
    /// Returns when the port is closed.
    pub async fn refuse(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Refuse;
            state.epoch += 1;
        });
        self.is_listening(false).await;
    }

    /// Resets the connections that are open; new ones are forwarded.
    pub fn sever(&self) {
        self.state.send_modify(|state| state.epoch += 1);
    }

    /// Forwards again; returns when connections are accepted.
    pub async fn restore(&self) {
        self.state.send_modify(|state| state.mode = Mode::Forward);
        self.is_listening(true).await;
    }

    /// Delays every chunk in each direction by at least `latency`, by less than twice as much under load.
    pub fn set_latency(&self, latency: Duration) {
        self.state.send_modify(|state| state.latency = latency);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.counts.borrow().open
    }

    /// How many connections have been accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.counts.borrow().accepted
    }

    /// Both counts, to be awaited: `proxy.counts().wait_for(|counts| counts.open == 0).await`.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
    }

    async fn is_listening(&self, expected: bool) {
        let mut listening = self.listening.clone();
        let seen = listening.wait_for(|listening| *listening == expected).await;
        assert!(seen.is_ok(), "the task of the proxy at {} has ended", self.url());
    }
}

// === impl Rules ===

impl Policy for Rules {
    type State = State;
    type Connection = Admitted;

    fn listens(&self, state: &State) -> bool {
        state.mode != Mode::Refuse
    }

    fn admit(&self, state: &State) -> Admitted {
        self.counts.send_modify(|counts| {
            counts.open += 1;
            counts.accepted += 1;
        });
        Admitted { epoch: state.epoch, counts: self.counts.clone() }
    }
}

// === impl Admitted ===

impl Connection<State> for Admitted {
    fn verdict(&self, state: &State) -> Verdict {
        match state.mode {
            _ if state.epoch != self.epoch => Verdict::Reset,
            Mode::Forward => Verdict::Flow(state.latency),
            Mode::Blackhole => Verdict::Hold,
            Mode::Refuse => Verdict::Reset,
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.counts.send_modify(|counts| counts.open -= 1);
    }
}

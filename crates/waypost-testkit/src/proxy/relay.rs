//! Forwarding of TCP connections under a policy that may change at any time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// What a relay does, as a function of a state that others change.
pub(crate) trait Policy: Send + Sync + 'static {
    type State: Send + Sync + 'static;
    type Connection: Connection<Self::State>;

    /// Whether new connections are accepted; if not, the kernel refuses them.
    fn listens(&self, state: &Self::State) -> bool;

    /// A connection has been accepted.
    fn admit(&self, state: &Self::State) -> Self::Connection;
}

/// One connection under a policy. What it counts, it counts until it is dropped.
pub(crate) trait Connection<State>: Send + Sync + 'static {
    fn verdict(&self, state: &State) -> Verdict;

    /// Sees what the side that connected has sent, before it is forwarded.
    fn observe(&self, _bytes: &[u8]) {}
}

/// What happens to the bytes of a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Forwarded, each chunk after this delay.
    Flow(Duration),
    /// Neither read nor written, nor is an end of the stream passed on.
    Hold,
    /// Both sides are reset.
    Reset,
}

/// Why a connection ended other than by an end of both streams: both sides are reset.
struct Broken;

/// A connection's view of the state.
struct Gate<P: Policy> {
    state: watch::Receiver<P::State>,
    connection: Arc<P::Connection>,
}

/// Bytes in one read; also what a hold that comes during a write may let slip.
const CHUNK: usize = 16 * 1024;

/// How long another socket may keep the port after it was given up.
const REBIND: Duration = Duration::from_secs(20);

/// Accepts on `listen` and forwards to `target` until the sender of `state` is dropped.
///
/// `listening` says whether connections are accepted now.
pub(crate) async fn serve<P: Policy>(
    listen: SocketAddr,
    target: SocketAddr,
    policy: P,
    mut state: watch::Receiver<P::State>,
    listening: watch::Sender<bool>,
) {
    while state.wait_for(|state| policy.listens(state)).await.is_ok() {
        let listener = bind(listen).await;
        listening.send_replace(true);
        loop {
            tokio::select! {
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !policy.listens(&state.borrow_and_update()) {
                        break;
                    }
                }
                accepted = listener.accept() => {
                    // An error here is that of one connection that is gone already.
                    if let Ok((client, _)) = accepted {
                        let connection = Arc::new(policy.admit(&state.borrow()));
                        tokio::spawn(connect(client, target, Gate::<P> { state: state.clone(), connection }));
                    }
                }
            }
        }
        drop(listener);
        listening.send_replace(false);
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + REBIND;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("a proxy cannot listen on {address}: {error}"),
        }
    }
}

async fn connect<P: Policy>(mut client: TcpStream, target: SocketAddr, mut gate: Gate<P>) {
    let forwarded = async {
        gate.open().await?;
        let mut server = TcpStream::connect(target).await.map_err(|_| Broken)?;
        // Small frames as they come: a proxy must not add a delay of its own.
        let no_delay = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        no_delay.map_err(|_| Broken)?;
        let forwarded = forward(&mut client, &mut server, &gate).await;
        if forwarded.is_err() {
            reset(&server);
        }
        forwarded
    };
    if forwarded.await.is_err() {
        reset(&client);
    }
}

/// The coming drop of the stream sends RST. One that is closed already has nothing to reset.
fn reset(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

async fn forward<P: Policy>(
    client: &mut TcpStream,
    server: &mut TcpStream,
    gate: &Gate<P>,
) -> Result<(), Broken> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        pump(from_client, to_server, gate.clone(), |bytes| gate.connection.observe(bytes)),
        pump(from_server, to_client, gate.clone(), |_| {}),
    )?;
    Ok(())
}

async fn pump<P: Policy>(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut gate: Gate<P>,
    observe: impl Fn(&[u8]),
) -> Result<(), Broken> {
    let mut buffer = vec![0; CHUNK];
    loop {
        gate.open().await?;
        let read = tokio::select! {
            biased;
            changed = gate.changed() => {
                changed?;
                continue;
            }
            read = from.read(&mut buffer) => read.map_err(|_| Broken)?,
        };
        observe(&buffer[..read]);
        let delay = gate.open().await?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            gate.open().await?;
            let written = tokio::select! {
                biased;
                changed = gate.changed() => {
                    changed?;
                    continue;
                }
                written = to.write(rest) => written.map_err(|_| Broken)?,
            };
            rest = &rest[written..];
        }
        if read == 0 {
            gate.open().await?;
            return to.shutdown().await.map_err(|_| Broken);
        }
    }
}

// === impl Gate ===

impl<P: Policy> Gate<P> {
    /// Waits until bytes may pass, and says with which delay.
    async fn open(&mut self) -> Result<Duration, Broken> {
        let connection = &self.connection;
        let state = self.state.wait_for(|state| connection.verdict(state) != Verdict::Hold).await;
        match state.map(|state| connection.verdict(&state)) {
            Ok(Verdict::Flow(delay)) => Ok(delay),
            Ok(Verdict::Hold | Verdict::Reset) | Err(_) => Err(Broken),
        }
    }

    /// Waits until the state is another than [`open`](Self::open) saw; broken when nobody is left to change it.
    async fn changed(&mut self) -> Result<(), Broken> {
        self.state.changed().await.map_err(|_| Broken)
    }
}

impl<P: Policy> Clone for Gate<P> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), connection: Arc::clone(&self.connection) }
    }
}

//! A server of bare HTTP/2 frames: it says only what a test does.

use super::{PATIENCE, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use waypost_model::Endpoint;

/// A connection that has been accepted.
pub(crate) struct Wire(BufReader<TcpStream>);

/// What has come, but for what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// `:status: 200`
pub(crate) const OK: &[u8] = &[0x88];
/// `grpc-status: 0`
pub(crate) const GOOD: &[u8] = b"\x00\x0bgrpc-status\x010";
/// The same as `OK` with `grpc-status: 12`.
pub(crate) const UNIMPLEMENTED: &[u8] = b"\x88\x00\x0bgrpc-status\x0212";

/// Where it will listen.
pub(crate) async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    (listener, endpoint)
}

// === impl Wire ===

impl Wire {
    /// Takes any number of requests at a time, of each the usual 65,535 bytes.
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        Self::accept_with(listener, 65_535).await
    }

    /// With room for so many bytes of each request.
    pub(crate) async fn accept_with(listener: &TcpListener, window: u32) -> Self {
        Self::accept_set(listener, (INITIAL_WINDOW_SIZE, window)).await
    }

    /// With this setting.
    pub(crate) async fn accept_set(listener: &TcpListener, setting: (u16, u32)) -> Self {
        let (stream, _) = within(listener.accept()).await.unwrap();
        let mut wire = Self(BufReader::new(stream));
        let mut preface = [0; 24];
        wire.0.read_exact(&mut preface).await.unwrap();
        wire.set(setting).await;
        while wire.any().await.kind != SETTINGS {}
        wire.send(SETTINGS, ACK, 0, &[]).await;
        wire
    }

    /// The next frame of this kind. The client must not take leave before.
    pub(crate) async fn next(&mut self, kind: u8) -> Head {
        loop {
            let head = tokio::time::timeout(PATIENCE, self.any()).await.expect("a frame comes");
            assert_ne!(head.kind, GOAWAY, "the client has ended the connection");
            if head.kind == kind {
                return head;
            }
        }
    }

    /// Sends this setting.
    pub(crate) async fn set(&mut self, (name, value): (u16, u32)) {
        let setting = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        self.send(SETTINGS, 0, 0, &setting).await;
    }

    /// The client sends no request, after it has read all that was sent.
    pub(crate) async fn is_quiet(&mut self) {
        self.send(PING, 0, 0, &[7; 8]).await;
        loop {
            let head = tokio::time::timeout(PATIENCE, self.any()).await.expect("a frame comes");
            assert_ne!(head.kind, HEADERS, "a request");
            if (head.kind, head.flags) == (PING, ACK) {
                return;
            }
        }
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.write_all(&frame(kind, flags, stream, payload)).await.unwrap();
    }

    /// Frames that were put together before.
    pub(crate) async fn send_all(&mut self, frames: &[u8]) {
        self.0.write_all(frames).await.unwrap();
    }

    async fn any(&mut self) -> Head {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let [high, mid, low, kind, flags, a, b, c, d] = head;
        let mut payload = vec![0; usize::from(high) << 16 | usize::from(mid) << 8 | usize::from(low)];
        self.0.read_exact(&mut payload).await.unwrap();
        Head { kind, flags, stream: u32::from_be_bytes([a, b, c, d]) }
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

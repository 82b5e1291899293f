//! Notices that a server has begun to serve.
//!
//! A TCP connection says little: the kernel of a stopped process accepts them, and so does a load balancer without a backend.
//! HTTP/2 has the server speak first, with SETTINGS, and acknowledge ours. The first alone is what gRPC asks for; the second
//! says that the server has read our greeting too. Until then a server that shuts down may close the connection without GOAWAY,
//! so that a call sent on it would be lost. The HTTP library tells neither, so the bytes are looked at on their way.
//!
//! Nor does it tell of a GOAWAY while a stream goes on, though no new call is taken from then on, nor of a change in how many requests
//! the server takes at a time, nor of the end of a response before that is read: these are looked for as well.

use crate::frames::{ACK, DATA, END_STREAM, Frames, GOAWAY, HEADERS, Head, Piece, RST_STREAM, SETTINGS};
use crate::table::Pace;
use crate::traffic::Traffic;
use h2::Reason;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Tells once when the server has begun to serve, or turned out to be something else. Notes when something was heard, a GOAWAY, how many
/// requests the server takes at a time, and the end of each response.
pub(crate) struct Listening {
    server: Server,
    heard: Option<oneshot::Sender<Greeting>>,
    traffic: Arc<Traffic>,
    pace: Arc<Pace>,
}

/// What a server's first frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// SETTINGS, and the acknowledgement of ours.
    Http2,
    /// It does not begin with SETTINGS.
    Foreign,
}

/// What frames say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Greeting(Greeting),
    GoAway,
    /// It takes leave because we have pinged too often.
    TooManyPings,
    /// So many requests at a time.
    Limit(usize),
    /// The response on this stream is complete, or will not be.
    Ended(u32),
}

/// Understands the frames of a server.
#[derive(Debug, Default)]
struct Server {
    frames: Frames,
    reading: Reading,
    /// What follows are no frames.
    foreign: bool,
}

/// What has come of a frame, and of those before it that it goes on with.
#[derive(Debug, Default)]
struct Reading {
    greeted: bool,
    /// Of a setting: two bytes of name, four of value. Of a GOAWAY: the last stream, four bytes of reason.
    field: [u8; FIELD],
    /// How much of it is there.
    known: usize,
    /// Ends with the headers that are still to come of it.
    ending: Option<u32>,
}

const FIELD: usize = 8;
const SETTING: usize = 6;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// What a server says that sends these bytes in portions of this size.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn words(bytes: &[u8], portion: usize) -> Vec<Word> {
    let (mut server, mut words) = (Server::default(), Vec::new());
    for bytes in bytes.chunks(portion) {
        server.read(bytes, |word| words.push(word));
    }
    words
}

// === impl Server ===

impl Server {
    fn read(&mut self, bytes: &[u8], mut tell: impl FnMut(Word)) {
        if self.foreign {
            return;
        }
        let Self { frames, reading, foreign } = self;
        frames.read(bytes, |piece| {
            if *foreign {
                return;
            }
            match piece {
                Piece::Begins(head) if !reading.greeted && head.kind != SETTINGS => {
                    *foreign = true;
                    tell(Word::Greeting(Greeting::Foreign));
                }
                Piece::Begins(head) => reading.begin(head, &mut tell),
                Piece::Carries(head, bytes) => reading.carry(head, bytes, &mut tell),
                Piece::Ends(head) => reading.end(head, &mut tell),
            }
        });
    }
}

// === impl Reading ===

impl Reading {
    fn begin(&mut self, head: Head, tell: &mut impl FnMut(Word)) {
        self.greeted = true;
        self.known = 0;
        if head.kind == SETTINGS && head.has(ACK) {
            tell(Word::Greeting(Greeting::Http2));
        }
        if head.kind == GOAWAY {
            tell(Word::GoAway);
        }
    }

    fn carry(&mut self, head: Head, bytes: &[u8], tell: &mut impl FnMut(Word)) {
        let length = match head.kind {
            SETTINGS => SETTING,
            GOAWAY => FIELD,
            _ => return,
        };
        for byte in bytes {
            // Of a GOAWAY what follows the reason is for people.
            let Some(place) = self.field.get_mut(self.known) else { return };
            *place = *byte;
            self.known += 1;
            if self.known < length {
                continue;
            }
            if head.kind == SETTINGS {
                self.known = 0;
                let [high, low, value @ .., _, _] = self.field;
                if u16::from_be_bytes([high, low]) == MAX_CONCURRENT_STREAMS {
                    // As many as there can be, where that is less.
                    let limit = usize::try_from(u32::from_be_bytes(value));
                    tell(Word::Limit(limit.unwrap_or(usize::MAX)));
                }
            } else {
                let [_, _, _, _, reason @ ..] = self.field;
                if Reason::from(u32::from_be_bytes(reason)) == Reason::ENHANCE_YOUR_CALM {
                    tell(Word::TooManyPings);
                }
            }
        }
    }

    /// A response is complete with all of its last frame, which the library waits for as well.
    fn end(&mut self, head: Head, tell: &mut impl FnMut(Word)) {
        if head.kind == RST_STREAM || (head.kind == DATA && head.has(END_STREAM)) {
            tell(Word::Ended(head.stream));
        }
        if head.kind == HEADERS && head.has(END_STREAM) {
            self.ending = Some(head.stream);
        }
        if head.completes_headers()
            && let Some(stream) = self.ending.take()
        {
            tell(Word::Ended(stream));
        }
    }
}

// === impl Listening ===

impl Listening {
    /// With what tells of the greeting. A server that complains of pings slows down the `pace`.
    pub(crate) fn new(traffic: Arc<Traffic>, pace: Arc<Pace>) -> (Self, oneshot::Receiver<Greeting>) {
        let (heard, greeting) = oneshot::channel();
        (Self { server: Server::default(), heard: Some(heard), traffic, pace }, greeting)
    }

    /// These bytes have come from the server.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        let Self { server, heard, traffic, pace } = self;
        traffic.hear();
        server.read(bytes, |word| match word {
            // Nobody listens any more: the attempt was given up.
            Word::Greeting(greeting) => drop(heard.take().map(|heard| heard.send(greeting))),
            Word::GoAway => traffic.leave(),
            Word::TooManyPings => pace.slow_down(),
            Word::Limit(limit) => traffic.set_limit(limit),
            Word::Ended(stream) => traffic.ended(stream),
        });
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        self.traffic.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn greeting(chunks: &[&[u8]]) -> Option<Greeting> {
        let (mut server, client) = tokio::io::duplex(1024);
        let (mut client, mut heard) = Wire::new(client, Arc::new(Traffic::new()), Arc::default());
        for chunk in chunks {
            server.write_all(chunk).await.unwrap();
            let mut read = vec![0; chunk.len()];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(read, *chunk);
        }
        heard.try_recv().ok()
    }

    #[tokio::test]
    async fn a_goaway_is_heard_after_whatever_came_before() {
        let (mut server, client) = tokio::io::duplex(1024);
        let traffic = Arc::new(Traffic::new());
        let (mut client, _heard) = Wire::new(client, Arc::clone(&traffic), Arc::default());
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
        let data = [0, 0, 3, 0, 0, 0, 0, 0, 1, 7, 7, 7];
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 127, 255, 255, 255, 0, 0, 0, 0];
        for (bytes, heard) in
            [(&settings[..], false), (&data, false), (&goaway[..4], false), (&goaway[4..], true)]
        {
            server.write_all(bytes).await.unwrap();
            let mut read = vec![0; bytes.len()];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(traffic.left.is_cancelled(), heard, "{bytes:?}");
        }
    }

    #[test]
    fn how_many_requests_a_server_takes_is_read_however_its_frames_are_cut() {
        let entry = |name: u8, value: u32| [&[0, name][..], &value.to_be_bytes()].concat();
        let settings = |entries: &[Vec<u8>]| {
            let payload = entries.concat();
            [&[0, 0, u8::try_from(payload.len()).unwrap(), 4, 0, 0, 0, 0, 0][..], &payload].concat()
        };
        let all = [
            settings(&[entry(4, 3), entry(3, 100), entry(5, 16_384)]),
            [0, 0, 0, 4, 1, 0, 0, 0, 0].to_vec(),
            // None but in SETTINGS, and only whole ones.
            [&[0, 0, 6, 0, 0, 0, 0, 0, 1][..], &entry(3, 1)].concat(),
            [&[0, 0, 4, 4, 0, 0, 0, 0, 0][..], &entry(3, 2)[..4]].concat(),
            settings(&[entry(3, 0), entry(3, u32::MAX)]),
        ]
        .concat();
        for portion in 1..all.len() {
            let limit = |word| if let Word::Limit(limit) = word { Some(limit) } else { None };
            let limits: Vec<_> = words(&all, portion).into_iter().filter_map(limit).collect();
            assert_eq!(limits, [100, 0, 4_294_967_295]);
        }
    }

    /// What the server says, and after how many bytes.
    fn words_at(bytes: &[u8]) -> Vec<(usize, Word)> {
        let (mut server, mut words) = (Server::default(), Vec::new());
        for (at, byte) in bytes.iter().enumerate() {
            server.read(&[*byte], |word| words.push((at + 1, word)));
        }
        words
    }

    /// The library counts its stream until then.
    #[test]
    fn a_response_is_complete_with_the_last_byte_of_its_last_frame() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let data = [0, 0, 3, 0, 1, 0, 0, 0, 1, 7, 7, 7];
        let headers = [0, 0, 2, 1, 1, 0, 0, 0, 3, 7, 7];
        let more = [0, 0, 1, 9, 4, 0, 0, 0, 3, 7];
        let whole = [0, 0, 1, 1, 5, 0, 0, 0, 5, 7];
        let reset = [0, 0, 4, 3, 0, 0, 0, 0, 7, 0, 0, 0, 8];
        let all = [&settings[..], &data, &headers, &more, &whole, &reset].concat();
        let ended = |at, stream| (at, Word::Ended(stream));
        assert_eq!(words_at(&all), [ended(21, 1), ended(42, 3), ended(52, 5), ended(65, 7)]);
    }

    #[test]
    fn a_server_that_is_pinged_too_often_says_so_when_it_takes_leave() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let goaway = |reason: u8, text: &[u8]| {
            let length = u8::try_from(8 + text.len()).unwrap();
            [&[0, 0, length, 7, 0, 0, 0, 0, 0, 127, 255, 255, 255, 0, 0, 0, reason], text].concat()
        };
        let complaint = words_at(&[&settings[..], &goaway(11, b"too_many_pings")].concat());
        assert_eq!(complaint, [(18, Word::GoAway), (26, Word::TooManyPings)]);
        assert_eq!(words_at(&[&settings[..], &goaway(0, b"")].concat()), [(18, Word::GoAway)]);
    }

    #[tokio::test]
    async fn a_server_serves_when_it_has_acknowledged_our_settings_however_its_frames_are_cut() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 255, 255];
        let ack = [0, 0, 0, 4, 1, 0, 0, 0, 0];
        let all = [&settings[..], &window, &ack].concat();
        assert_eq!(greeting(&[&all]).await, Some(Greeting::Http2));
        let bytes: Vec<_> = all.chunks(1).collect();
        assert_eq!(greeting(&bytes).await, Some(Greeting::Http2));
        assert_eq!(greeting(&bytes[..bytes.len() - 5]).await, None);
        assert_eq!(greeting(&[&settings, &window]).await, None);
        assert_eq!(greeting(&[&window, &ack]).await, Some(Greeting::Foreign));
        assert_eq!(greeting(&[b"HTTP/1.1 400 Bad Request\r\n"]).await, Some(Greeting::Foreign));
        assert_eq!(greeting(&[]).await, None);
    }
}

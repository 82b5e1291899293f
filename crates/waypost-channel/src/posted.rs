//! Knows which requests have left: what the transport has taken, a server may work on, and what it has not taken no server ever will.
//!
//! The library keeps requests in queues of its own, and tells of none whether it is still there. So the frames are followed on their way
//! out, below whatever discards what cannot be written.

use crate::frames::{Frames, HEADERS, Piece};
use crate::traffic::Traffic;
use std::sync::Arc;

/// Notes the requests whose headers the transport has taken to the end.
pub(crate) struct Posted {
    /// Of what a client says before its first frame, how much is still to come.
    preface: usize,
    frames: Frames,
    /// Whose headers go on in the next frame.
    opening: u32,
    traffic: Arc<Traffic>,
}

/// RFC 9113, 3.4.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

// === impl Posted ===

impl Posted {
    pub(crate) fn new(traffic: Arc<Traffic>) -> Self {
        Self { preface: PREFACE, frames: Frames::default(), opening: 0, traffic }
    }

    /// The transport has taken as many of these bytes as there are, and `most` at most. Says how many that are.
    pub(crate) fn take(&mut self, bytes: &[u8], most: usize) -> usize {
        let taken = &bytes[..bytes.len().min(most)];
        let preface = taken.len().min(self.preface);
        self.preface -= preface;
        let Self { frames, opening, traffic, .. } = self;
        frames.read(&taken[preface..], |piece| {
            if let Piece::Ends(head) = piece {
                if head.kind == HEADERS {
                    *opening = head.stream;
                }
                // A server knows nothing of a request before the last byte of its headers.
                if head.completes_headers() {
                    traffic.post(*opening);
                }
            }
        });
        taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;
    use std::io;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[tokio::test]
    async fn a_request_has_left_with_the_last_byte_of_its_headers() {
        let sent = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(1, 4, 1, &[1, 2, 3]),
            frame(0, 1, 1, b"data"),
            frame(1, 0, 3, &[1, 2, 3]),
            frame(9, 4, 3, &[4, 5]),
        ];
        let posted = [0, 0, 1, 1, 1, 3];
        let traffic = Arc::new(Traffic::new());
        let (client, mut server) = tokio::io::duplex(1024);
        let (mut client, _heard) = Wire::new(client, Arc::clone(&traffic), Arc::default());
        let mut before = 0;
        for (bytes, after) in sent.iter().zip(posted) {
            let (last, others) = bytes.split_last().unwrap();
            for byte in others {
                client.write_all(&[*byte]).await.unwrap();
                assert_eq!((traffic.has_posted(before), traffic.has_posted(before + 1)), (true, false));
            }
            let slices = [io::IoSlice::new(&[]), io::IoSlice::new(std::slice::from_ref(last))];
            assert_eq!(client.write_vectored(&slices).await.unwrap(), 1);
            assert_eq!((traffic.has_posted(after), traffic.has_posted(after + 1)), (true, false));
            before = after;
        }
        let mut all = vec![0; sent.concat().len()];
        server.read_exact(&mut all).await.unwrap();
        assert_eq!(all, sent.concat());
    }

    /// What is not taken has not left.
    #[tokio::test]
    async fn a_request_that_lies_in_front_of_a_full_socket_has_not_left() {
        let traffic = Arc::new(Traffic::new());
        let (client, _server) = tokio::io::duplex(PREFACE + 11);
        let (mut client, _heard) = Wire::new(client, Arc::clone(&traffic), Arc::default());
        client.write_all(&[0; PREFACE]).await.unwrap();
        let headers = frame(1, 4, 1, &[1, 2, 3]);
        assert_eq!(client.write(&headers).await.unwrap(), 11);
        assert!(!traffic.has_posted(1));
    }
}

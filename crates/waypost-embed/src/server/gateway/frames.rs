//! Messages in a body of gRPC: a byte that says whether it is compressed (nothing is, here), the length, the message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

const HEAD: usize = 5;

pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEAD + message.len());
    framed.put_u8(0);
    // Messages are limited to less than 4 GiB.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(message);
    framed.freeze()
}

/// Takes the next message, if it is there as a whole.
pub(super) fn next(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..HEAD)?.first_chunk().copied().map(u32::from_be_bytes)?;
    let end = HEAD + usize::try_from(length).ok()?;
    if buffer.len() < end {
        return None;
    }
    let mut message = buffer.split_to(end);
    message.advance(HEAD);
    Some(message.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_all_of_it_is_there() {
        let framed = [frame(b"one"), frame(b"")].concat();
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in framed {
            buffer.put_u8(byte);
            taken.extend(next(&mut buffer));
        }
        assert_eq!(taken, [&b"one"[..], b""]);
    }
}

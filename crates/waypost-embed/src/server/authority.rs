//! Lets in clients of etcd whose requests have an `:authority` that is none.
//!
//! Their Go library takes the URL of an endpoint for its address where it speaks to one endpoint by name (status, hash,
//! defragmentation, move of the leader), and sends `http://host:port` as `:authority`, or the path of a Unix socket. Go's
//! server does not look at it; the one here resets the stream. So the first request of a connection is looked at before
//! HTTP/2 is: `://` becomes `j--`, which is as long in every encoding, so that nothing else changes: neither the frame, nor
//! the table of headers to which later requests refer. Later requests of a connection have the same `:authority`.

use bytes::{Buf as _, BytesMut};
use tokio::io::ReadBuf;

/// The beginning of a connection, up to its first request.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// What was read and not passed on.
    buffer: BytesMut,
    /// Bytes of the buffer that may be passed on.
    cleared: usize,
    /// Whether the bytes that every connection of HTTP/2 begins with are behind.
    opened: bool,
    /// Whether there is nothing more to look for.
    done: bool,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// Frames of this length at least are not waited for.
const LONG: usize = 64 << 10;

const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Index of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

// === impl Opening ===

impl Opening {
    /// Whether what comes next need not be looked at.
    pub(super) fn is_over(&self) -> bool {
        self.done && self.cleared == 0
    }

    /// Whether the connection speaks HTTP/2, as far as is known.
    pub(super) fn is_http2(&self) -> bool {
        self.opened
    }

    /// What has been read; nothing, if nothing more will come.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if bytes.is_empty() {
            self.give_up();
        } else {
            self.look();
        }
    }

    /// Passes on what may be. `false`: more has to be [read](Self::read) first.
    pub(super) fn pass(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let length = self.cleared.min(out.remaining());
        out.put_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        self.cleared -= length;
        length > 0
    }

    /// Looks at what has been read, and clears what may be passed on.
    fn look(&mut self) {
        if !self.opened {
            let known = self.buffer.len().min(PREFACE.len());
            if self.buffer[..known] != PREFACE[..known] {
                return self.give_up();
            }
            if known < PREFACE.len() {
                return;
            }
            self.opened = true;
            self.cleared = known;
        }
        while let Some([a, b, c, kind, flags, ..]) = self.buffer.get(self.cleared..) {
            let (kind, flags) = (*kind, *flags);
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if length >= LONG {
                return self.give_up();
            }
            let start = self.cleared + FRAME_HEADER;
            let Some(payload) = self.buffer.get_mut(start..start + length) else { return };
            if kind == HEADERS {
                // What is malformed is for others to refuse.
                let _ = mend_headers(payload, flags);
                return self.give_up();
            }
            self.cleared = start + length;
        }
    }

    fn give_up(&mut self) {
        self.cleared = self.buffer.len();
        self.done = true;
    }
}

/// Finds `:authority` among the headers of a frame and mends it. `None`: there is none, or the frame is malformed.
fn mend_headers(payload: &mut [u8], flags: u8) -> Option<()> {
    let mut block = payload;
    if flags & PADDED != 0 {
        let (padding, rest) = block.split_first_mut()?;
        let length = rest.len().checked_sub(usize::from(*padding))?;
        block = &mut rest[..length];
    }
    if flags & PRIORITY != 0 {
        block = block.get_mut(5..)?;
    }
    let mut at = 0;
    loop {
        let first = *block.get(at)?;
        // Indexed, or a new size of the table: no value follows.
        if first & 0x80 != 0 {
            integer(block, &mut at, 7)?;
            continue;
        }
        if first & 0xE0 == 0x20 {
            integer(block, &mut at, 5)?;
            continue;
        }
        let name = integer(block, &mut at, if first & 0x40 != 0 { 6 } else { 4 })?;
        if name == 0 {
            string(block, &mut at)?;
        }
        let (huffman, value) = string(block, &mut at)?;
        if name == AUTHORITY {
            mend_value(block.get_mut(value)?, huffman);
            return Some(());
        }
    }
}

/// Reads an integer whose first byte has this many bits of it.
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Passes over a string: whether it is in Huffman's code, and where it is.
fn string(block: &[u8], at: &mut usize) -> Option<(bool, std::ops::Range<usize>)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let start = *at;
    *at = start.checked_add(length).filter(|end| *end <= block.len())?;
    Some((huffman, start..*at))
}

/// Makes a host of a value that has a slash in it; what has none is left alone.
fn mend_value(value: &mut [u8], huffman: bool) {
    if !huffman {
        let Some(last) = value.iter().rposition(|byte| *byte == b'/') else { return };
        for (at, byte) in value.iter_mut().enumerate() {
            *byte = match *byte {
                b'/' | b' ' | b'%' => b'-',
                b':' if at < last => b'j',
                other => other,
            };
        }
        return;
    }
    let symbols = symbols(value);
    let Some(last) = symbols.iter().rposition(|symbol| symbol.is(SLASH)) else { return };
    for (at, symbol) in symbols.iter().enumerate() {
        if [SLASH, SPACE, PERCENT].into_iter().any(|code| symbol.is(code)) {
            symbol.replace(value, HYPHEN);
        } else if symbol.is(COLON) && at < last {
            symbol.replace(value, LETTER_J);
        }
    }
}

/// One character in Huffman's code of HPACK.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    /// Its first bit in the value.
    at: usize,
    code: Code,
}

/// Length in bits, and the bits.
type Code = (usize, u16);

const SPACE: Code = (6, 0b01_0100);
const PERCENT: Code = (6, 0b01_0101);
const HYPHEN: Code = (6, 0b01_0110);
const SLASH: Code = (6, 0b01_1000);
const COLON: Code = (7, 0b101_1100);
const LETTER_J: Code = (7, 0b111_0100);

/// For each length of a code the bits after its last one; what is not below is longer (RFC 7541, appendix B).
const LENGTHS: [Code; 10] = [
    (5, 0b0_1010),
    (6, 0b10_1110),
    (7, 0b111_1100),
    (8, 0b1111_1110),
    (10, 0b11_1111_1101),
    (11, 0b111_1111_1101),
    (12, 0b1111_1111_1100),
    (13, 0b1_1111_1111_1110),
    (14, 0b11_1111_1111_1110),
    (15, 0b111_1111_1111_1111),
];

/// The characters of a value; it ends with padding of ones, or with a character that no address has.
fn symbols(value: &[u8]) -> Vec<Symbol> {
    let mut found = Vec::new();
    let mut at = 0;
    let next = |at: usize| {
        let fits = |(length, end): Code| Some((length, end, bits(value, at, length)?));
        let (length, _, code) = LENGTHS.into_iter().map_while(fits).find(|(_, end, code)| code < end)?;
        Some((length, code))
    };
    while let Some(code) = next(at) {
        found.push(Symbol { at, code });
        at += code.0;
    }
    found
}

fn bits(value: &[u8], at: usize, length: usize) -> Option<u16> {
    (at..at + length).try_fold(0, |bits, at| {
        let byte = value.get(at / 8)?;
        Some(bits << 1 | u16::from(byte >> (7 - at % 8) & 1))
    })
}

// === impl Symbol ===

impl Symbol {
    fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// Writes a code of the same length in its place.
    fn replace(&self, value: &mut [u8], (length, code): Code) {
        for bit in 0..length {
            let at = self.at + bit;
            let mask = 1 << (7 - at % 8);
            let Some(byte) = value.get_mut(at / 8) else { return };
            if code >> (length - 1 - bit) & 1 == 1 { *byte |= mask } else { *byte &= !mask }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out when the bytes arrive in pieces of this size.
    fn pass(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut opening = Opening::default();
        let mut passed = Vec::new();
        for piece in bytes.chunks(piece).chain([&[][..]]) {
            if opening.is_over() {
                passed.extend_from_slice(piece);
                continue;
            }
            opening.read(piece);
            let mut out = [0; 3];
            let mut out = ReadBuf::new(&mut out);
            while opening.pass(&mut out) {
                passed.extend_from_slice(out.filled());
                out.clear();
            }
        }
        passed
    }

    /// A connection whose first request has these headers, as they are encoded.
    fn connection(block: &[u8], flags: u8) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let [_, _, b, c] = u32::try_from(block.len()).unwrap().to_be_bytes();
        bytes.extend_from_slice(&[0, b, c, HEADERS, flags, 0, 0, 0, 1]);
        bytes.extend_from_slice(block);
        bytes
    }

    #[test]
    fn an_authority_with_a_scheme_becomes_one_without() {
        let plain = |value: &[u8]| {
            let path = b"\x83\x86\x44\x02/a\x41";
            [&path[..], &[u8::try_from(value.len()).unwrap()], value].concat()
        };
        for piece in [1, 7, 4096] {
            for (value, expected) in [
                (&b"http://127.0.0.1:2379"[..], &b"httpj--127.0.0.1:2379"[..]),
                (b"https://etcd:2379", b"httpsj--etcd:2379"),
                (b"127.0.0.1:2379", b"127.0.0.1:2379"),
                (b"/run/etcd.sock", b"-run-etcd.sock"),
                (b"unix:///a b", b"unixj---a-b"),
                (b"http", b"http"),
            ] {
                let passed = pass(&connection(&plain(value), 4), piece);
                assert_eq!(passed, connection(&plain(expected), 4));
            }
        }
    }

    /// A header block with this `:authority` in Huffman's code.
    fn coded(value: &str) -> Vec<u8> {
        let codes = value.bytes().map(|letter| match letter {
            b'h' => (6, 0b10_0111),
            b't' => (5, 0b0_1001),
            b'p' => (6, 0b10_1011),
            b'1' => (5, 0b0_0001),
            b'#' => (12, 0b1111_1111_1010),
            b':' => COLON,
            b'j' => LETTER_J,
            b'/' => SLASH,
            b'-' => HYPHEN,
            b' ' => SPACE,
            other => panic!("{other}"),
        });
        let mut bits = codes.map(|(length, code)| format!("{code:0length$b}")).collect::<Vec<_>>().concat();
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let bytes: Vec<u8> =
            (0..bits.len()).step_by(8).map(|at| u8::from_str_radix(&bits[at..at + 8], 2).unwrap()).collect();
        [&[0x41, 0x80 | u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat()
    }

    #[test]
    fn so_it_does_in_huffmans_code() {
        for (value, expected) in [
            ("http://1", "httpj--1"),
            ("/tp p/1:1/h", "-tp-p-1j1-h"),
            ("#1:http://1", "#1jhttpj--1"),
            ("h:1", "h:1"),
        ] {
            assert_eq!(pass(&connection(&coded(value), 4), 5), connection(&coded(expected), 4), "{value}");
        }
    }

    #[test]
    fn padding_and_priority_are_passed_over() {
        let block = |value: &str| [b"\x03\0\0\0\0\0\x41\x08", value.as_bytes(), b"\0\0\0"].concat();
        let flags = 4 | PADDED | PRIORITY;
        assert_eq!(pass(&connection(&block("http://a"), flags), 3), connection(&block("httpj--a"), flags));
    }

    #[test]
    fn http_1_passes_as_it_is() {
        for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"P", b"PRI * HTTP/1.1\r\n\r\n", b""] {
            assert_eq!(pass(request, 2), request);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_added(
            block in prop::collection::vec(any::<u8>(), 0..64),
            flags: u8,
            piece in 1_usize..64,
        ) {
            let bytes = connection(&block, flags);
            prop_assert_eq!(pass(&bytes, piece).len(), bytes.len());
            prop_assert_eq!(pass(&block, piece), block);
        }
    }
}

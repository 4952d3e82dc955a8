//! Where requests begin and end on a connection, and which of them are not taken. Pure: bytes in, words out; the shell
//! is `http/checked.rs`.
//!
//! It looks at every head before the server of HTTP does. What two readers could take for different requests is refused:
//! a length beside chunks, two lengths, chunks inside something else (RFC 9112, 6.1 to 6.3, 11.2). So a proxy in front
//! cannot be made to see other requests than the node.

/// How long and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    /// Bytes of a head.
    pub(super) bytes: usize,
    /// Headers in it.
    pub(super) headers: usize,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// A length and chunks.
    #[error(
        "A request with both Transfer-Encoding and Content-Length is not taken: which one counts, nobody knows."
    )]
    LengthAndChunks,
    /// Several lengths, or none that is a number.
    #[error("Content-Length is to be one number.")]
    Length,
    /// Not simply chunks.
    #[error("Transfer-Encoding is to be 'chunked', once, and not in HTTP/1.0.")]
    Encoding,
    /// A header over several lines, or without a colon.
    #[error("A header is to be one line: name, colon, value.")]
    Header,
    /// The head is too long.
    #[error("The head of a request may have {0} bytes here: see --max_http_head.")]
    TooLong(usize),
    /// Too many headers.
    #[error("A request may have {0} headers here: see --max_http_headers.")]
    TooMany(usize),
}

impl Unfit {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::LengthAndChunks | Self::Length | Self::Encoding | Self::Header => 400,
            Self::TooLong(_) | Self::TooMany(_) => 431,
        }
    }
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    Chunks,
}

/// Where in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In its length, with the digits so far.
    Size {
        size: u64,
        digits: u32,
    },
    /// In what follows the length on its line.
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk, or within one.
    Trailer {
        is_empty: bool,
    },
    TrailerLf {
        is_empty: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a head; so many of its bytes have no end among them. So many bytes of empty lines were before it.
    Head {
        looked: usize,
        blank: usize,
    },
    Bytes(u64),
    Chunks(Chunk),
    /// Nothing that follows is looked at any more.
    Over,
}

/// What becomes of the bytes that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// So many of them can be handed on, 1 or more.
    Pass(usize),
    /// The head of a request that is not taken begins there; nothing is handed on any more.
    Refuse(Unfit),
    /// More are needed.
    Wait,
    /// Nothing is handed on any more.
    End,
}

/// At the beginning of a head.
const BEGINNING: State = State::Head {
    looked: 0,
    blank: 0,
};

/// Where in the requests of a connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    limits: HeadLimits,
    heads: u64,
}

impl Framing {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            state: BEGINNING,
            limits,
            heads: 0,
        }
    }

    /// Heads that were handed on or refused.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether everything before was whole.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// What becomes of `waiting`: all that came and was not passed yet.
    pub(super) fn next(&mut self, waiting: &[u8]) -> Next {
        if waiting.is_empty() {
            return match self.state {
                State::Over => Next::End,
                State::Head { .. } | State::Bytes(_) | State::Chunks(_) => Next::Wait,
            };
        }
        match self.state {
            State::Head { looked, blank } => self.head(waiting, looked, blank),
            State::Bytes(left) => {
                let all = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
                let pass = left.min(all);
                self.state = match left - pass {
                    0 => BEGINNING,
                    rest => State::Bytes(rest),
                };
                // No more than there is.
                Next::Pass(usize::try_from(pass).unwrap_or(waiting.len()))
            }
            State::Chunks(chunk) => Next::Pass(self.chunks(waiting, chunk)),
            State::Over => Next::End,
        }
    }

    fn head(&mut self, waiting: &[u8], looked: usize, blank: usize) -> Next {
        // Empty lines before a head are let pass, as whoever reads it does.
        let empty = waiting
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let empty = if looked == 0 { empty.count() } else { 0 };
        let found = end_of_head(waiting, looked);
        let length = if empty > 0 {
            empty
        } else {
            found.unwrap_or(waiting.len())
        };
        if blank + length > self.limits.bytes {
            return self.refuse(Unfit::TooLong(self.limits.bytes));
        }
        if empty > 0 {
            let blank = blank + empty;
            self.state = State::Head { looked: 0, blank };
            return Next::Pass(empty);
        }
        let Some(end) = found else {
            let looked = waiting.len();
            self.state = State::Head { looked, blank };
            return Next::Wait;
        };
        match body_after(&waiting[..end], self.limits.headers) {
            Ok(body) => {
                self.heads += 1;
                self.state = match body {
                    Body::Bytes(0) => BEGINNING,
                    Body::Bytes(length) => State::Bytes(length),
                    Body::Chunks => State::Chunks(Chunk::Size { size: 0, digits: 0 }),
                };
                Next::Pass(end)
            }
            Err(why) => self.refuse(why),
        }
    }

    fn refuse(&mut self, why: Unfit) -> Next {
        self.heads += 1;
        self.state = State::Over;
        Next::Refuse(why)
    }

    /// Bytes up to the end of the chunks, or up to the first that is none of theirs: whoever reads them refuses it, and
    /// gets nothing more.
    fn chunks(&mut self, waiting: &[u8], mut chunk: Chunk) -> usize {
        let mut at = 0;
        while let Some(&byte) = waiting.get(at) {
            if let Chunk::Data(left) = chunk {
                let all = u64::try_from(waiting.len() - at).unwrap_or(u64::MAX);
                let pass = left.min(all);
                at += usize::try_from(pass).unwrap_or(waiting.len() - at);
                chunk = match left - pass {
                    0 => Chunk::DataCr,
                    rest => Chunk::Data(rest),
                };
                continue;
            }
            at += 1;
            match step(chunk, byte) {
                Some(next) => chunk = next,
                None => {
                    let is_end = matches!(chunk, Chunk::TrailerLf { is_empty: true });
                    self.state = if is_end && byte == b'\n' {
                        BEGINNING
                    } else {
                        State::Over
                    };
                    return at;
                }
            }
        }
        self.state = State::Chunks(chunk);
        at
    }
}

/// Where a chunk goes with this byte; none at the end of the last, or when the byte does not belong there.
fn step(chunk: Chunk, byte: u8) -> Option<Chunk> {
    Some(match (chunk, byte) {
        (Chunk::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
            let digit = char::from(byte).to_digit(16)?;
            Chunk::Size {
                size: size << 4 | u64::from(digit),
                digits: digits + 1,
            }
        }
        (Chunk::Size { size, digits: 1.. }, b';') => Chunk::Extension { size },
        (Chunk::Size { size, digits: 1.. } | Chunk::Extension { size }, b'\r') => {
            Chunk::SizeLf { size }
        }
        (Chunk::Extension { size }, byte) if byte != b'\n' => Chunk::Extension { size },
        (Chunk::SizeLf { size: 0 }, b'\n') => Chunk::Trailer { is_empty: true },
        (Chunk::SizeLf { size }, b'\n') => Chunk::Data(size),
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size { size: 0, digits: 0 },
        (Chunk::Trailer { is_empty }, b'\r') => Chunk::TrailerLf { is_empty },
        (Chunk::Trailer { .. }, byte) if byte != b'\n' => Chunk::Trailer { is_empty: false },
        (Chunk::TrailerLf { is_empty: false }, b'\n') => Chunk::Trailer { is_empty: true },
        _ => return None,
    })
}

/// How far a head goes: past its empty line. `looked` bytes are known to have no end among them.
fn end_of_head(bytes: &[u8], looked: usize) -> Option<usize> {
    // An end is at most two bytes long before its last one.
    let mut from = looked.saturating_sub(2);
    while let Some(found) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let end = from + found + 1;
        let before = &bytes[..end - 1];
        if (before.strip_suffix(b"\r").unwrap_or(before)).ends_with(b"\n") {
            return Some(end);
        }
        from = end;
    }
    None
}

/// What follows this head.
fn body_after(head: &[u8], most: usize) -> Result<Body, Unfit> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request = lines.next().unwrap_or_default();
    let (mut length, mut is_chunked, mut count) = (None, false, 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        count += 1;
        if count > most {
            return Err(Unfit::TooMany(most));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Unfit::Header)?);
        // A line that begins with a space would go on with the one before it.
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            return Err(Unfit::Header);
        }
        let value = value[1..].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = number(value).ok_or(Unfit::Length)?;
            if length.replace(number).is_some_and(|other| other != number) {
                return Err(Unfit::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if is_chunked || !value.eq_ignore_ascii_case(b"chunked") || !request.ends_with(b"/1.1")
            {
                return Err(Unfit::Encoding);
            }
            is_chunked = true;
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(Unfit::LengthAndChunks),
        (Some(length), false) => Ok(Body::Bytes(length)),
        (None, true) => Ok(Body::Chunks),
        (None, false) => Ok(Body::Bytes(0)),
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

/// What is handed on of these bytes, which come in pieces of `size`, why the next request is not, and whether all of them
/// were whole requests.
fn walk(bytes: &[u8], size: usize, limits: HeadLimits) -> (Vec<u8>, Option<Unfit>, bool) {
    let mut framing = Framing::new(limits);
    let (mut waiting, mut out) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        waiting.extend_from_slice(piece);
        loop {
            match framing.next(&waiting) {
                Next::Pass(count) => {
                    debug_assert!((1..=waiting.len()).contains(&count), "some, and no more");
                    out.extend(waiting.drain(..count));
                }
                Next::Wait => break,
                Next::Refuse(why) => return (out, Some(why), false),
                Next::End => return (out, None, false),
            }
        }
    }
    let is_whole = framing.is_between_requests() && waiting.is_empty();
    (out, None, is_whole)
}

/// For fuzzing: what is handed on of these bytes, which come in pieces of `size`, and whether a request was refused.
pub(crate) fn passed(bytes: &[u8], size: usize, limits: HeadLimits) -> (Vec<u8>, bool) {
    let (out, why, _) = walk(bytes, size, limits);
    (out, why.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 200,
        headers: 5,
    };

    fn handed(bytes: &[u8], size: usize) -> (Vec<u8>, Option<Unfit>, bool) {
        walk(bytes, size, LIMITS)
    }

    fn refused(head: &str) -> Option<Unfit> {
        let all = [1, 2, 7, 1000].map(|size| handed(head.as_bytes(), size));
        assert!(all.iter().all(|one| *one == all[0]), "{head:?} {all:?}");
        all[0].1
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    const CHUNKS: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
                          3\r\nabc\r\na;x=1\r\n0123456789\r\n0\r\nT: 1\r\n\r\n";

    #[test]
    fn whole_requests_pass_however_they_come() {
        let all = [
            GET,
            POST,
            CHUNKS,
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.0\nHost: a\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            GET,
        ]
        .concat();
        for size in 1..all.len() {
            let (out, why, is_whole) = handed(all.as_bytes(), size);
            assert_eq!(
                (out.len(), why, is_whole),
                (all.len(), None, true),
                "{size}"
            );
        }
    }

    #[test]
    fn what_could_be_two_different_requests_is_refused() {
        for (head, why) in [
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 3",
                Unfit::LengthAndChunks,
            ),
            (
                "Content-Length: 3\r\nTransfer-Encoding: chunked",
                Unfit::LengthAndChunks,
            ),
            (
                "content-length: 0\r\nTRANSFER-ENCODING:chunked",
                Unfit::LengthAndChunks,
            ),
            ("Content-Length: 3\r\nContent-Length: 4", Unfit::Length),
            ("Content-Length: 3, 3", Unfit::Length),
            ("Content-Length: +3", Unfit::Length),
            ("Content-Length: -1", Unfit::Length),
            ("Content-Length: 0x3", Unfit::Length),
            ("Content-Length:", Unfit::Length),
            ("Content-Length: 99999999999999999999", Unfit::Length),
            ("Transfer-Encoding: gzip, chunked", Unfit::Encoding),
            ("Transfer-Encoding: chunked, gzip", Unfit::Encoding),
            ("Transfer-Encoding: identity", Unfit::Encoding),
            ("Transfer-Encoding: xchunked", Unfit::Encoding),
            ("Transfer-Encoding: \u{b}chunked", Unfit::Encoding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                Unfit::Encoding,
            ),
            ("Transfer-Encoding : chunked", Unfit::Header),
            (" Transfer-Encoding: chunked", Unfit::Header),
            ("X: 1\r\n Transfer-Encoding: chunked", Unfit::Header),
            ("X: 1\r\n\tContent-Length: 3", Unfit::Header),
            ("X", Unfit::Header),
            (": x", Unfit::Header),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\nabc");
            assert_eq!(refused(&head), Some(why), "{head:?}");
            assert_eq!(
                refused(&format!("{POST}{CHUNKS}{head}")),
                Some(why),
                "{head:?}"
            );
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(refused(old), Some(Unfit::Encoding));
    }

    #[test]
    fn a_head_is_bounded_in_length_and_in_headers() {
        let five = "GET / HTTP/1.1\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\n";
        assert_eq!(refused(&format!("{five}\r\n")), None);
        assert_eq!(
            refused(&format!("{five}F: 1\r\n\r\n")),
            Some(Unfit::TooMany(5))
        );
        let long = |length| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(length));
        assert_eq!(refused(&long(200 - long(0).len())), None);
        assert_eq!(
            refused(&long(201 - long(0).len())),
            Some(Unfit::TooLong(200))
        );
        // Without an end, too.
        assert_eq!(refused(&"x".repeat(201)), Some(Unfit::TooLong(200)));
        for size in [1, 7, 1000] {
            let (_, why, _) = handed("\r\n".repeat(101).as_bytes(), size);
            assert_eq!(why, Some(Unfit::TooLong(200)), "{size}");
        }
        assert_eq!(Unfit::TooMany(5).status(), 431);
    }

    #[test]
    fn after_chunks_that_are_none_nothing_passes() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in [
            "x",
            "\r",
            ";",
            "3x",
            "3\n",
            "3 ",
            "-",
            "3;\n",
            "3\rx",
            "3\r\nabcd",
            "3\r\nabc\n",
            "3\r\nabc\rx",
            "0\r\n\n",
            "0\r\nT: 1\n",
            "0\r\n\rx",
            "0000000000000001",
        ] {
            let all = format!("{head}{bad}{GET}");
            for size in [1, 3, 1000] {
                let (out, why, _) = handed(all.as_bytes(), size);
                assert_eq!((out.len(), why), (head.len() + bad.len(), None), "{bad:?}");
            }
        }
    }
}

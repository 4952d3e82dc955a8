//! Records of a stream: the length in decimal digits, a line feed, the bytes.
//! Pure.

use std::io::Write as _;

/// Longest count of digits that a reader takes.
const MOST_DIGITS: usize = 20;

/// One record.
pub fn record(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + MOST_DIGITS + 1);
    // A vector takes everything.
    let _always = writeln!(out, "{}", content.len());
    out.extend_from_slice(content);
    out
}

/// Why bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// What stands before the line feed is no number.
    #[error("a record begins with its length in digits and a line feed")]
    NoLength,
    /// The length is more than the reader takes.
    #[error("a record has at most {0} bytes")]
    TooLong(usize),
}

/// Puts records together from the pieces in which a stream comes.
#[derive(Debug)]
pub struct Reader {
    waiting: Vec<u8>,
    longest: usize,
}

impl Reader {
    /// Takes records of at most this many bytes.
    pub const fn new(longest: usize) -> Self {
        Self {
            waiting: Vec::new(),
            longest,
        }
    }

    /// Takes a piece and gives the records that are complete with it.
    ///
    /// # Errors
    /// [`RecordError`]; nothing can be read after that.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, RecordError> {
        self.waiting.extend_from_slice(piece);
        let (mut out, mut from) = (Vec::new(), 0);
        loop {
            let rest = &self.waiting[from..];
            let head = &rest[..rest.len().min(MOST_DIGITS + 1)];
            let Some(digits) = head.iter().position(|byte| *byte == b'\n') else {
                if head.len() > MOST_DIGITS || head.iter().any(|byte| !byte.is_ascii_digit()) {
                    return Err(RecordError::NoLength);
                }
                break;
            };
            let length = std::str::from_utf8(&rest[..digits])
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse::<usize>().ok())
                .ok_or(RecordError::NoLength)?;
            if length > self.longest {
                return Err(RecordError::TooLong(self.longest));
            }
            let Some(content) = rest.get(digits + 1..digits + 1 + length) else {
                break;
            };
            out.push(content.to_vec());
            from += digits + 1 + length;
        }
        self.waiting.drain(..from);
        Ok(out)
    }

    /// Whether the stream has ended within a record.
    pub fn is_within_a_record(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_whole_however_they_are_cut() {
        let all: Vec<&[u8]> = vec![b"", b"{}", b"a\nb", &[0; 300]];
        let stream: Vec<u8> = all.iter().flat_map(|content| record(content)).collect();
        assert!(stream.starts_with(b"0\n2\n{}3\na\nb300\n"));
        for size in [1, 2, 3, 7, 1000] {
            let mut reader = Reader::new(300);
            let mut got = Vec::new();
            for piece in stream.chunks(size) {
                got.extend(reader.feed(piece).unwrap());
            }
            assert_eq!(got, all);
            assert!(!reader.is_within_a_record());
        }
    }

    #[test]
    fn what_is_no_record_is_refused_at_once() {
        let fed = |bytes: &[u8]| Reader::new(10).feed(bytes);
        assert_eq!(fed(b"x"), Err(RecordError::NoLength));
        assert_eq!(fed(b"-1\n"), Err(RecordError::NoLength));
        assert_eq!(fed(b"\n"), Err(RecordError::NoLength));
        assert_eq!(fed(&[b'1'; 30]), Err(RecordError::NoLength));
        assert_eq!(fed(b"11\n"), Err(RecordError::TooLong(10)));
        assert_eq!(fed(b"1"), Ok(vec![]));
    }
}

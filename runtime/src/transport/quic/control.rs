//! Words on the control stream, after Hello: what two transports say to each other beside the frames of their nodes.
//!
//! Pure: bytes in, words out.
//!
//! ```text
//! u8 what | u16 length of the rest, big endian | rest
//!   1 ping        u64 number, to be answered with
//!   2 pong        u64 the same number
//!   3 overloaded  id of a process here whose mailbox was full
//!   4 leave       u64 frames sent, u64 received on this connection: nobody uses it, shall it end?
//!   5 left        yes, and nothing more is sent on it from here
//!   6 stay        no
//! ```
//!
//! Words of later versions are skipped.

use super::leave::Traffic;
use crate::pid::MAX_ID_BYTES;

/// Most bytes of words that wait to be written; what a peer does not read must not grow without end.
pub(super) const MAX_WAITING: usize = 16 << 10;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Ping(u64),
    Pong(u64),
    Overloaded(String),
    Leave(Traffic),
    Left,
    Stay,
}

impl Word {
    /// Appends the word.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut word = |what: u8, rest: &[&[u8]]| {
            // An id has at most MAX_ID_BYTES.
            let length = rest.iter().map(|part| part.len()).sum::<usize>();
            out.push(what);
            out.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
            rest.iter().for_each(|part| out.extend_from_slice(part));
        };
        match self {
            Self::Ping(number) => word(1, &[&number.to_be_bytes()]),
            Self::Pong(number) => word(2, &[&number.to_be_bytes()]),
            Self::Overloaded(id) => word(3, &[id.as_bytes()]),
            Self::Leave(Traffic { sent, received }) => {
                word(4, &[&sent.to_be_bytes(), &received.to_be_bytes()]);
            }
            Self::Left => word(5, &[]),
            Self::Stay => word(6, &[]),
        }
    }

    /// The word of these bytes; `None` for one of a later version, or one that says nothing.
    fn read(what: u8, rest: &[u8]) -> Option<Self> {
        let number = || Some(u64::from_be_bytes(rest.try_into().ok()?));
        match what {
            1 => number().map(Self::Ping),
            2 => number().map(Self::Pong),
            3 if rest.len() <= MAX_ID_BYTES => std::str::from_utf8(rest)
                .ok()
                .map(|id| Self::Overloaded(id.to_owned())),
            4 => {
                let (sent, received) = rest.split_first_chunk()?;
                Some(Self::Leave(Traffic {
                    sent: u64::from_be_bytes(*sent),
                    received: u64::from_be_bytes(received.try_into().ok()?),
                }))
            }
            5 => Some(Self::Left),
            6 => Some(Self::Stay),
            _ => None,
        }
    }
}

/// Cuts the control stream into words.
#[derive(Debug, Default)]
pub(super) struct Words {
    bytes: Vec<u8>,
}

impl Words {
    /// Takes bytes in and calls `each` with every word that they end.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Word)) {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[what, high, low]) = self.bytes[at..].first_chunk::<3>() {
            let end = at + 3 + usize::from(u16::from_be_bytes([high, low]));
            let Some(rest) = self.bytes.get(at + 3..end) else {
                break;
            };
            if let Some(word) = Word::read(what, rest) {
                each(word);
            }
            at = end;
        }
        self.bytes.drain(..at);
    }
}

/// Reads the words in `bytes`, given in pieces of this size, and writes them again, for its fuzz target.
pub(crate) fn read_words(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut words, mut out) = (Words::default(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        words.feed(piece, |word| word.write(&mut out));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back_however_the_bytes_come_and_others_are_skipped() {
        let all = [
            Word::Ping(7),
            Word::Pong(u64::MAX),
            Word::Overloaded("slave(1)".to_owned()),
            Word::Leave(Traffic {
                sent: 1,
                received: u64::MAX,
            }),
            Word::Left,
            Word::Stay,
        ];
        let mut bytes = Vec::new();
        for word in &all {
            bytes.extend_from_slice(&[99, 0, 2, 1, 1]);
            word.write(&mut bytes);
        }
        for size in [1, 5, 1000] {
            let (mut words, mut read) = (Words::default(), Vec::new());
            for piece in bytes.chunks(size) {
                words.feed(piece, |word| read.push(word));
            }
            assert_eq!(read, all);
            assert!(words.bytes.is_empty());
        }
    }
}

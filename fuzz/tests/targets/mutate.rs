//! Random changes of an input: to its bytes, and for MessagePack also to its values, so that what comes out is still
//! MessagePack and gets past the first check.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};

/// Bytes that mean something to some decoder: lengths, limits, separators.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\x81",
    b"\x90",
    b"\x91",
    b"\xc0",
    b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdd\0\x10\0\0",
    b"\xde\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xda\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc6\x03\xff\xff\xff",
    b"\xca\x7f\xc0\0\0",
    b"\xcb\x7f\xf8\0\0\0\0\0\0",
    b"\xd3\x80\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\0\0\0\x01",
    b"\x7f\xff\xff\xff",
    b"@",
    b":",
    b";",
    b"[",
    b"]",
    b"(",
    b")",
    b"{",
    b"}",
    b"-",
    b"..",
    b"/",
    b"%",
    b"%00",
    b"?",
    b"&",
    b"=",
    b"1e308",
    b"-0",
    b"NaN",
    b"99999999999999999999",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
];

/// One to four changes; `other` is another input of the same corpus.
pub(crate) fn mutate(input: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..5) {
        if random.random_bool(0.4) && values(&bytes).len() > 1 {
            change_value(&mut bytes, other, random);
        } else {
            change_bytes(&mut bytes, other, random);
        }
    }
    bytes
}

fn change_bytes(bytes: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    let end = (at + random.random_range(0..16)).min(bytes.len());
    match random.random_range(0..8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 => drop(bytes.drain(at..end)),
        3 => bytes.truncate(at),
        4 => {
            let copy = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, copy));
        }
        5 => {
            let from = random.random_range(0..=other.len());
            drop(bytes.splice(at.., other[from..].iter().copied()));
        }
        6 => {
            let mut some = vec![0; random.random_range(1..9)];
            random.fill_bytes(&mut some);
            drop(bytes.splice(at..at, some));
        }
        _ => {
            let token = TOKENS.choose(random).copied().unwrap_or_default();
            let end = if random.random() {
                (at + token.len()).min(bytes.len())
            } else {
                at
            };
            drop(bytes.splice(at..end, token.iter().copied()));
        }
    }
}

/// Puts another value in the place of one.
fn change_value(bytes: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let places = values(bytes);
    let Some((begin, end)) = places.choose(random).copied() else {
        return;
    };
    let value = match random.random_range(0..9) {
        0 => vec![0xc0],
        1 => vec![0x80],
        2 => vec![0x90],
        3 => list(b"\x80", random.random_range(1..4000)),
        4 => list(b"\xa1x", random.random_range(1..4000)),
        5 => [vec![0x91; random.random_range(1..200)], vec![0xc0]].concat(),
        6 => [b"\x81\xa1x".repeat(random.random_range(1..200)), vec![0xc0]].concat(),
        7 => [b"\xdd\x7f\xff\xff\xff".as_slice(), &bytes[begin..end]].concat(),
        _ => {
            let theirs = values(other);
            let theirs = theirs.choose(random).copied().unwrap_or((0, other.len()));
            other[theirs.0..theirs.1].to_vec()
        }
    };
    drop(bytes.splice(begin..end, value));
}

/// A list that repeats a value.
pub(crate) fn list(value: &[u8], times: u32) -> Vec<u8> {
    let mut bytes = vec![0xdd];
    bytes.extend_from_slice(&times.to_be_bytes());
    bytes.extend_from_slice(&value.repeat(times as usize));
    bytes
}

/// Where each MessagePack value of an input begins and ends, inner ones too; empty when it is not MessagePack.
fn values(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    match value(bytes, 0, 0, &mut places) {
        Some(end) if end == bytes.len() => places,
        _ => Vec::new(),
    }
}

fn value(bytes: &[u8], at: usize, depth: usize, places: &mut Vec<(usize, usize)>) -> Option<usize> {
    if depth > 100 || places.len() > 10_000 {
        return None;
    }
    let number = |width: usize| {
        let digits = bytes.get(at + 1..at + 1 + width)?;
        Some(
            digits
                .iter()
                .fold(0_usize, |number, digit| number << 8 | usize::from(*digit)),
        )
    };
    let tag = *bytes.get(at)?;
    // Width of the length field, bytes of content, and values inside.
    let (head, content, inner) = match tag {
        0x80..=0x8f => (0, 0, 2 * usize::from(tag & 15)),
        0x90..=0x9f => (0, 0, usize::from(tag & 15)),
        0xa0..=0xbf => (0, usize::from(tag & 31), 0),
        0xc4 | 0xd9 => (1, number(1)?, 0),
        0xc5 | 0xda => (2, number(2)?, 0),
        0xc6 | 0xdb => (4, number(4)?, 0),
        0xc7 => (1, number(1)? + 1, 0),
        0xc8 => (2, number(2)? + 1, 0),
        0xc9 => (4, number(4)? + 1, 0),
        0xcc | 0xd0 => (0, 1, 0),
        0xcd | 0xd1 => (0, 2, 0),
        0xca | 0xce | 0xd2 => (0, 4, 0),
        0xcb | 0xcf | 0xd3 => (0, 8, 0),
        0xd4..=0xd8 => (0, 1 + (1 << (tag - 0xd4)), 0),
        0xdc => (2, 0, number(2)?),
        0xdd => (4, 0, number(4)?),
        0xde => (2, 0, 2 * number(2)?),
        0xdf => (4, 0, 2 * number(4)?),
        _ => (0, 0, 0),
    };
    let place = places.len();
    places.push((at, at));
    let mut end = at + 1 + head + content;
    if end > bytes.len() {
        return None;
    }
    for _ in 0..inner {
        end = value(bytes, end, depth + 1, places)?;
    }
    places[place].1 = end;
    Some(end)
}

//! Counts the words of a slice.
//!
//! A word is a maximal run of ASCII letters and digits, lower-cased; every other byte separates. A slice counts the
//! words that *begin* in it: it looks at the byte before its first one, to see whether that one goes on with a word,
//! and reads past its end until its last word ends. So the slices of a file together count each word once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

use crate::split::Slice;

/// Occurrences by word.
pub(crate) type Counts = HashMap<Vec<u8>, u64>;

/// Counts the words that begin in a slice.
pub(crate) fn count_slice(slice: &Slice, counts: &mut Counts) -> io::Result<()> {
    let mut file = File::open(&slice.path)?;
    let before = slice.begin.saturating_sub(1);
    file.seek(SeekFrom::Start(before))?;
    count(
        BufReader::with_capacity(1 << 16, file),
        before,
        slice,
        counts,
    )
}

/// Counts from a reader that stands at byte `position`: the slice's first, or the one before it.
fn count(
    reader: impl BufRead,
    mut position: u64,
    slice: &Slice,
    counts: &mut Counts,
) -> io::Result<()> {
    let mut word: Vec<u8> = Vec::new();
    // A word that began before the slice belongs to the slice before.
    let mut foreign = false;
    for byte in reader.bytes() {
        let byte = byte?;
        if byte.is_ascii_alphanumeric() {
            if word.is_empty() && !foreign {
                if position >= slice.end {
                    break;
                }
                foreign = position < slice.begin;
            }
            if !foreign {
                word.push(byte.to_ascii_lowercase());
            }
        } else {
            foreign = false;
            if !word.is_empty() {
                add(counts, &word, 1);
                word.clear();
            }
            if position >= slice.end {
                break;
            }
        }
        position += 1;
    }
    if !word.is_empty() {
        add(counts, &word, 1);
    }
    Ok(())
}

/// Adds occurrences of a word, which is copied only the first time.
fn add(counts: &mut Counts, word: &[u8], count: u64) {
    match counts.get_mut(word) {
        Some(present) => *present += count,
        None => {
            counts.insert(word.to_vec(), count);
        }
    }
}

/// Counts as text, `word<TAB>count` a line in byte order of the words.
pub(crate) fn to_text(counts: &Counts) -> Vec<u8> {
    let mut sorted: Vec<(&Vec<u8>, &u64)> = counts.iter().collect();
    sorted.sort_unstable();
    let mut text = Vec::new();
    for (word, count) in sorted {
        text.extend_from_slice(word);
        text.push(b'\t');
        text.extend_from_slice(count.to_string().as_bytes());
        text.push(b'\n');
    }
    text
}

/// Adds counts from their text; `None` when it is none.
pub(crate) fn add_text(counts: &mut Counts, text: &[u8]) -> Option<()> {
    for line in text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let count: u64 = std::str::from_utf8(&line[tab + 1..]).ok()?.parse().ok()?;
        add(counts, &line[..tab], count);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &[u8]) -> Counts {
        let mut counts = Counts::new();
        for word in text
            .split(|byte| !byte.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
        {
            *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn any_cut_gives_the_same_counts() {
        let text = b"Apple apple-pie\x00\xff\xfe na\xc3\xafve 007 a\n\nAPPLE2 end";
        for most in 1..=text.len() as u64 {
            let mut sum = Counts::new();
            let mut begin = 0;
            while begin < text.len() as u64 {
                let end = (begin + most).min(text.len() as u64);
                let slice = Slice {
                    path: "x".into(),
                    begin,
                    end,
                };
                let before = begin.saturating_sub(1);
                let mut counted = Counts::new();
                let rest = &text[usize::try_from(before).unwrap()..];
                count(rest, before, &slice, &mut counted).unwrap();
                add_text(&mut sum, &to_text(&counted)).unwrap();
                begin = end;
            }
            assert_eq!(sum, whole(text), "slices of {most}");
        }
    }

    #[test]
    fn text_that_is_no_counts_is_refused() {
        assert_eq!(add_text(&mut Counts::new(), b"no tab\n"), None);
    }
}

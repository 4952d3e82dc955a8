//! The journal of a run: one line for each thing that happened, a hash over all of them, and the last ones as a story.
//!
//! Pure. Two runs of one seed have the same journal, byte for byte: a line holds virtual time, node, incarnation,
//! sequence number, kind and fields, and nothing that comes from the machine the simulator runs on.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::clock::Time;

/// Lines kept for the story of a failure.
const KEPT: usize = 2_000;

/// See the module.
pub struct Journal {
    hash: u64,
    lines: u64,
    kept: VecDeque<String>,
    all: Option<Vec<String>>,
    line: String,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            kept: VecDeque::new(),
            all: None,
            line: String::new(),
        }
    }
}

impl Journal {
    /// Keeps every line from now on, for [`Journal::text`].
    pub fn keep_all(&mut self) {
        self.all.get_or_insert_default();
    }

    /// Writes one line.
    pub(crate) fn note(
        &mut self,
        now: Time,
        place: &dyn std::fmt::Display,
        what: std::fmt::Arguments<'_>,
    ) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        self.lines += 1;
        // Writing to a String cannot fail.
        let _infallible = write!(
            line,
            "{:>3}.{:09} {:>6} {place:<12} {what}",
            now.0 / 1_000_000_000,
            now.0 % 1_000_000_000,
            self.lines
        );
        // 64-bit FNV-1a: the same on every machine and in every version of the compiler.
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.keep(line);
    }

    /// Adds to the last line what is not part of the journal proper.
    pub(crate) fn detail(&mut self, text: &str) {
        self.keep(format!("{:>17} {text}", ""));
    }

    fn keep(&mut self, line: String) {
        if let Some(all) = &mut self.all {
            all.push(line.clone());
        }
        let reused = if self.kept.len() >= KEPT {
            self.kept.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        self.kept.push_back(line);
        self.line = reused;
    }

    /// Hash over all lines so far: 64-bit FNV-1a.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Lines written so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// All lines since [`Journal::keep_all`].
    pub fn text(&self) -> &[String] {
        self.all.as_deref().unwrap_or_default()
    }

    /// The last lines that tell what happened: those of which one of `words` is a part, or any when none is given.
    pub fn story(&self, lines: usize, words: &[String]) -> Vec<String> {
        let relevant = |line: &&String| words.is_empty() || words.iter().any(|w| line.contains(w));
        let mut story: Vec<String> = self
            .kept
            .iter()
            .rev()
            .filter(relevant)
            .take(lines)
            .cloned()
            .collect();
        story.reverse();
        story
    }
}

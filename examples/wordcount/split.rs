//! Cuts files into portions, one for each map task.
//!
//! Pure. A slice is a range of bytes; where it cuts through a word does not matter, because a slice counts exactly
//! the words that begin in it (see `count.rs`).

use std::path::PathBuf;

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The file.
    pub path: PathBuf,
    /// First byte.
    pub begin: u64,
    /// First byte that is not in it.
    pub end: u64,
}

/// Most parts of one portion, so that its description stays small.
const MAX_PARTS: usize = 1000;
/// Portions a job is cut into at least, as far as [`SMALLEST`] allows, so that several agents get some.
const PORTIONS: u64 = 12;
/// Portions are not made smaller than this for the sake of their number, in bytes.
const SMALLEST: u64 = 16 << 10;

/// A good size of a portion for this much input: at most `most` bytes.
pub(crate) fn portion_size(files: &[(PathBuf, u64)], most: u64) -> u64 {
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    total.div_ceil(PORTIONS).max(SMALLEST).min(most)
}

/// Cuts files of these sizes into portions of at most `most` bytes, each one task's work: slices of one large file,
/// or many small files. An empty file has no slice.
pub(crate) fn split(files: &[(PathBuf, u64)], most: u64) -> Vec<Vec<Slice>> {
    let mut portions = Vec::new();
    let (mut portion, mut filled) = (Vec::new(), 0);
    for (path, size) in files {
        let mut begin = 0;
        while begin < *size {
            if filled == most || portion.len() == MAX_PARTS {
                portions.push(std::mem::take(&mut portion));
                filled = 0;
            }
            let end = begin.saturating_add(most - filled).min(*size);
            portion.push(Slice {
                path: path.clone(),
                begin,
                end,
            });
            filled += end - begin;
            begin = end;
        }
    }
    if !portion.is_empty() {
        portions.push(portion);
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_cover_each_file_once() {
        let files = [("a".into(), 10), ("empty".into(), 0), ("b".into(), 4)];
        let cut: Vec<Vec<(u64, u64)>> = split(&files, 4)
            .iter()
            .map(|portion| portion.iter().map(|s| (s.begin, s.end)).collect())
            .collect();
        let expected = [
            vec![(0, 4)],
            vec![(4, 8)],
            vec![(8, 10), (0, 2)],
            vec![(2, 4)],
        ];
        assert_eq!(cut, expected);
    }

    #[test]
    fn small_input_still_makes_work_for_several_agents() {
        let size = |total| portion_size(&[("a".into(), total)], 4 << 20);
        assert_eq!(
            (size(100), size(12 << 20), size(1 << 40)),
            (SMALLEST, 1 << 20, 4 << 20)
        );
    }
}

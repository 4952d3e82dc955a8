//! Cuts files into slices, one for each map task.
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

/// Cuts files of these sizes into slices of at most `most` bytes. An empty file has no slice.
pub(crate) fn split(files: &[(PathBuf, u64)], most: u64) -> Vec<Slice> {
    let mut slices = Vec::new();
    for (path, size) in files {
        let mut begin = 0;
        while begin < *size {
            let end = size.min(&begin.saturating_add(most)).to_owned();
            slices.push(Slice {
                path: path.clone(),
                begin,
                end,
            });
            begin = end;
        }
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_each_file_once() {
        let files = [("a".into(), 10), ("empty".into(), 0), ("b".into(), 4)];
        let cut: Vec<(u64, u64)> = split(&files, 4).iter().map(|s| (s.begin, s.end)).collect();
        assert_eq!(cut, [(0, 4), (4, 8), (8, 10), (0, 4)]);
    }
}

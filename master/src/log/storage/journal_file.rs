//! The journal's file, written past the page cache where the file system lets us.
//!
//! A sync of such a file has nothing to look for in the cache: it takes half of the processor time, and with several
//! members on one machine half as long again less. What is written begins at a block and has whole blocks, and so do the
//! batches of the journal. Where the file system refuses that, the file is written through the cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

use super::files::Medium;
use super::journal::{BLOCK, SECTOR};

/// Bytes of a block.
#[expect(clippy::cast_possible_truncation, reason = "it is 8")]
const BYTES: usize = BLOCK as usize * SECTOR;

/// See the module.
pub(super) struct JournalFile {
    file: File,
    /// Where what is written is put together, for a file that is written past the page cache.
    room: Option<Vec<u8>>,
}

impl JournalFile {
    /// Opens a file that is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let past = options
            .clone()
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(path);
        if let Ok(file) = past {
            let mut room = Vec::new();
            // Some refuse it only now.
            if file.read_exact_at(aligned(&mut room, BYTES)?, 0).is_ok() {
                let room = Some(room);
                return Ok(Self { file, room });
            }
        }
        let (file, room) = (options.open(path)?, None);
        Ok(Self { file, room })
    }
}

impl Medium for JournalFile {
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(room) = &mut self.room else {
            return self.file.write_all_at(bytes, offset);
        };
        let room = aligned(room, bytes.len())?;
        room.copy_from_slice(bytes);
        self.file.write_all_at(room, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The part of this room that begins where a block may.
fn aligned(room: &mut Vec<u8>, length: usize) -> io::Result<&mut [u8]> {
    if room.len() < length + BYTES {
        room.resize(length + BYTES, 0);
    }
    let skip = room.as_ptr().align_offset(BYTES);
    room.get_mut(skip..)
        .and_then(|from| from.get_mut(..length))
        .ok_or_else(|| io::Error::other("there is no room that begins at a block"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_on_either_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        std::fs::write(&path, vec![0; 8 * BYTES]).unwrap();
        let mut file = JournalFile::open(&path).unwrap();
        let offset = |block: usize| u64::try_from(block * BYTES).unwrap();
        for block in 0..3 {
            file.write(&vec![1; (block + 1) * BYTES], offset(block))
                .unwrap();
            file.sync().unwrap();
        }
        file.room = None;
        drop(file);
        let mut through = JournalFile {
            file: OpenOptions::new().write(true).open(&path).unwrap(),
            room: None,
        };
        through.write(&[2; BYTES], offset(6)).unwrap();
        through.sync().unwrap();
        let read = std::fs::read(&path).unwrap();
        let first: Vec<u8> = read.chunks(BYTES).map(|block| block[0]).collect();
        assert_eq!(first, [1, 1, 1, 1, 1, 0, 2, 0]);
        assert!(
            read.chunks(BYTES)
                .all(|block| block.iter().all(|byte| *byte == block[0]))
        );
    }
}

//! The journal: where a batch of changes becomes durable, with one sync of a file that never changes its size.
//!
//! Pure: how batches are laid out, and what a file says after a crash. The file is a ring of sectors. A batch has blocks
//! of its own, lies in one piece, and each of its sectors is sealed; what the table has taken over may be
//! overwritten. So no write touches a block with something in it that was acknowledged. Since disks write whole sectors, each one is either as it was or as it should be, so that a torn batch
//! is told from a damaged one: a sector that is neither was damaged.
//!
//! ```text
//!   sector (512 B)  CRC-32 u32 │ sequence u64 │ index u32 │ of u32 │ length u16 │ 490 B of the batch
//!                   all zero: never written. Little-endian; the CRC covers the sector's number and all behind it.
//!
//!   ring   │ free │ applied, may go │ waiting for the table │ free │
//!                                   ▲ tail                  ▲ head
//! ```
//!
//! One batch is under way at a time, so only the last can be torn; a gap before the last is damage.

use std::collections::{BTreeMap, VecDeque};

/// Bytes that a disk writes as a whole.
pub const SECTOR: usize = 512;
/// Sectors of a block: what a disk may read, change and write back for less, and what goes past the page cache.
pub const BLOCK: u64 = 8;
const HEADER: usize = 22;
const PAYLOAD: usize = SECTOR - HEADER;

/// Sectors that a batch of this many bytes takes.
pub fn sectors(bytes: usize) -> u64 {
    bytes.div_ceil(PAYLOAD).max(1) as u64
}

/// Sectors of the blocks that a batch of this many bytes takes.
pub fn place_of(bytes: usize) -> u64 {
    sectors(bytes).next_multiple_of(BLOCK)
}

/// A batch as it stands in the ring from sector `start` on, to the end of its last block. None when it is longer than any
/// ring.
pub fn frame(sequence: u64, start: u64, batch: &[u8]) -> Option<Vec<u8>> {
    let of = u32::try_from(sectors(batch.len())).ok()?;
    let size = usize::try_from(place_of(batch.len())).ok()? * SECTOR;
    let mut out = Vec::with_capacity(size);
    let mut pieces = batch.chunks(PAYLOAD);
    for index in 0..of {
        let piece = pieces.next().unwrap_or_default();
        let mut sector = [0; SECTOR];
        sector[4..12].copy_from_slice(&sequence.to_le_bytes());
        sector[12..16].copy_from_slice(&index.to_le_bytes());
        sector[16..20].copy_from_slice(&of.to_le_bytes());
        sector[20..HEADER].copy_from_slice(&u16::try_from(piece.len()).ok()?.to_le_bytes());
        sector[HEADER..HEADER + piece.len()].copy_from_slice(piece);
        let sum = seal(start + u64::from(index), &sector);
        sector[..4].copy_from_slice(&sum.to_le_bytes());
        out.extend(sector);
    }
    out.resize(size, 0);
    Some(out)
}

/// The CRC that a sector of this number begins with, over the number and all bytes behind the first four.
pub fn seal(number: u64, sector: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&sector[4..]);
    hasher.finalize()
}

struct Sector<'a> {
    sequence: u64,
    index: u32,
    of: u32,
    piece: &'a [u8],
}

/// What a sector says; none when it was never written.
fn parse(number: u64, sector: &[u8]) -> Result<Option<Sector<'_>>, ()> {
    if sector.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let u32_at = |at: usize| sector[at..at + 4].try_into().map(u32::from_le_bytes);
    let length = usize::from(sector[20]) | usize::from(sector[21]) << 8;
    let (Ok(sum), Ok(index), Ok(of)) = (u32_at(0), u32_at(12), u32_at(16)) else {
        return Err(());
    };
    let Ok(sequence) = sector[4..12].try_into().map(u64::from_le_bytes) else {
        return Err(());
    };
    if sum != seal(number, sector) || length > PAYLOAD || index >= of {
        return Err(());
    }
    Ok(Some(Sector {
        sequence,
        index,
        of,
        piece: &sector[HEADER..HEADER + length],
    }))
}

/// What a journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Batches that the table has not taken over, by their sequence numbers, in order.
    pub batches: Vec<(u64, Vec<u8>)>,
    /// The highest number that any of its sectors has used, or that was applied.
    pub last: u64,
    /// What is wrong, in words; none when all that was ever synced is there.
    pub damage: Option<String>,
}

/// Reads a journal whose batches up to `applied` are in the table.
pub fn scan(file: &[u8], applied: u64) -> Scan {
    let mut scan = Scan {
        last: applied,
        ..Scan::default()
    };
    let mut whole: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    // The batch that is being put together: its number, its next index, its content.
    let mut open: Option<(u64, u32, Vec<u8>)> = None;
    for (number, bytes) in (0..).zip(file.chunks_exact(SECTOR)) {
        let sector = match parse(number, bytes) {
            Ok(sector) => sector,
            Err(()) => {
                scan.damage = Some(format!("sector {number} of the journal is damaged"));
                None
            }
        };
        let Some(sector) = sector else {
            open = None;
            continue;
        };
        scan.last = scan.last.max(sector.sequence);
        if sector.index == 0 {
            open = Some((sector.sequence, 0, Vec::new()));
        }
        let fits = |(sequence, next, _): &&mut (u64, u32, Vec<u8>)| {
            *sequence == sector.sequence && *next == sector.index
        };
        let Some((_, next, content)) = open.as_mut().filter(fits) else {
            open = None;
            continue;
        };
        content.extend(sector.piece);
        *next += 1;
        if *next == sector.of
            && let Some((sequence, _, content)) = open.take()
            && sequence > applied
        {
            whole.insert(sequence, content);
        }
    }
    let mut expected = applied;
    for (sequence, batch) in whole {
        expected += 1;
        if sequence != expected {
            break;
        }
        scan.batches.push((sequence, batch));
    }
    // Behind the last whole batch there may be one that was under way, and nothing else.
    let missing = applied.saturating_add(scan.batches.len() as u64 + 1);
    if scan.last > missing && scan.damage.is_none() {
        scan.damage = Some(format!("batch {missing} is missing from the journal"));
    }
    scan
}

/// Which sectors of the ring are in use. Offsets only grow; the place in the file is their remainder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    size: u64,
    head: u64,
    tail: u64,
    /// Ends of the batches that the table has not taken over, by their numbers.
    ends: VecDeque<(u64, u64)>,
}

impl Ring {
    /// An empty ring of `size` sectors.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            head: 0,
            tail: 0,
            ends: VecDeque::new(),
        }
    }

    /// Whether a batch of so many sectors belongs here at all; longer ones go to the table directly.
    pub fn holds(&self, sectors: u64) -> bool {
        sectors <= self.size / 4
    }

    /// Sectors in use.
    pub fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// Whether it is time for the table to take batches over.
    pub fn is_filling(&self) -> bool {
        self.used() > self.size / 4
    }

    /// Takes sectors for a batch and returns the first. None when they are not free yet.
    pub fn place(&mut self, sequence: u64, sectors: u64) -> Option<u64> {
        let at = self.head % self.size;
        let skipped = if at + sectors > self.size {
            self.size - at
        } else {
            0
        };
        if self.used() + skipped + sectors > self.size {
            return None;
        }
        let start = self.head + skipped;
        self.head = start + sectors;
        self.ends.push_back((sequence, self.head));
        Some(start % self.size)
    }

    /// The table has taken over everything up to this batch.
    pub fn applied(&mut self, through: u64) {
        while let Some((sequence, end)) = self.ends.front() {
            if *sequence > through {
                break;
            }
            self.tail = *end;
            self.ends.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// A journal of 32 sectors with these batches, one after another.
    fn journal(batches: &[(u64, usize)]) -> Vec<u8> {
        let mut file = vec![0; 32 * SECTOR];
        let mut ring = Ring::new(32);
        for (sequence, size) in batches {
            let start = ring.place(*sequence, place_of(*size)).unwrap();
            write(
                &mut file,
                start,
                &frame(*sequence, start, &content(*sequence, *size)).unwrap(),
            );
            ring.applied(sequence.saturating_sub(2));
        }
        file
    }

    fn content(sequence: u64, size: usize) -> Vec<u8> {
        let byte = u8::try_from(sequence % 250).unwrap() + 1;
        vec![byte; size]
    }

    fn write(file: &mut [u8], start: u64, sectors: &[u8]) {
        let start = usize::try_from(start).unwrap() * SECTOR;
        file[start..start + sectors.len()].copy_from_slice(sectors);
    }

    #[test]
    fn batches_come_back_in_order_and_applied_ones_do_not() {
        let file = journal(&[(1, 10), (2, 1200), (3, 0)]);
        let found = scan(&file, 1);
        assert_eq!(found.batches, [(2, content(2, 1200)), (3, Vec::new())]);
        assert_eq!((found.last, found.damage), (3, None));
        assert_eq!(scan(&vec![0; 16 * SECTOR], 5).last, 5);
    }

    #[test]
    fn the_ring_goes_round_and_keeps_what_is_not_applied() {
        let batches: Vec<(u64, usize)> = (1..100).map(|n| (n, 1000)).collect();
        let file = journal(&batches);
        let found = scan(&file, 97);
        assert_eq!(
            found.batches,
            [(98, content(98, 1000)), (99, content(99, 1000))]
        );
        assert_eq!(found.damage, None);
        let mut ring = Ring::new(16);
        assert!((1..=5).all(|n| ring.place(n, 3).is_some()));
        assert_eq!(ring.place(6, 3), None);
        ring.applied(1);
        assert_eq!(ring.place(6, 3), Some(0));
    }

    #[test]
    fn a_torn_last_batch_is_dropped_whatever_of_it_was_written() {
        let before = journal(&[(1, 700), (2, 300)]);
        let after = journal(&[(1, 700), (2, 300), (3, 1900)]);
        for subset in 0..15_usize {
            let mut file = before.clone();
            for bit in (0..4).filter(|bit| subset >> bit & 1 == 1) {
                let at = (16 + bit) * SECTOR;
                file[at..at + SECTOR].copy_from_slice(&after[at..at + SECTOR]);
            }
            let found = scan(&file, 0);
            assert_eq!(found.batches.len(), 2, "subset {subset}");
            assert_eq!(found.damage, None, "subset {subset}");
        }
        assert_eq!(scan(&after, 0).batches.len(), 3);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_what_was_written_is_damage() {
        let file = journal(&[(1, 700), (2, 300), (3, 40)]);
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..500 {
            // The sectors of the first two batches, and the first of each other block.
            let sector = [0, 1, 8, 16][random.random_range(0..4)];
            let bit = sector * SECTOR * 8 + random.random_range(0..SECTOR * 8);
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(scan(&bad, 0).damage.is_some(), "bit {bit}");
        }
    }

    #[test]
    fn a_lost_batch_before_the_last_is_damage() {
        let mut file = journal(&[(1, 10), (2, 10), (3, 10)]);
        file[8 * SECTOR..9 * SECTOR].fill(0);
        let found = scan(&file, 0);
        assert_eq!(found.batches.len(), 1);
        assert!(found.damage.is_some());
    }

    #[test]
    fn a_sector_in_another_place_is_damage() {
        let mut file = journal(&[(1, 10), (2, 10)]);
        file.copy_within(0..SECTOR, 5 * SECTOR);
        assert!(scan(&file, 0).damage.is_some());
    }
}

//! The pages of an LMDB file, read without mapping it.
//!
//! Pure: bytes in, records and faults out. LMDB trusts its pages: a file that was cut off ends the program with SIGBUS
//! once it is mapped, and a damaged pointer leads anywhere. So a file is walked by this code first, from the meta page
//! on, and handed to LMDB only when every page that is reachable is what it should be, lies within the file, belongs
//! to one tree only and is not on the list of free pages. What a damaged file still holds is read here too.
//!
//! Layout (LMDB 0.9, 64 bits, the machine's byte order; see `mdb.c`):
//!
//! ```text
//!   page   number u64 │ pad u16 │ flags u16 │ lower u16 │ upper u16 │ offsets of nodes u16… │ … nodes
//!   node   size or child, low 32 bits │ flags, or child's high 16 bits │ key length u16 │ key │ data
//!   meta   (after a page's header) magic u32 │ version u32 │ address u64 │ map size u64 │ free tree │ main tree
//!          │ last page u64 │ transaction u64
//!   tree   page size or 0 u32 │ flags u16 │ depth u16 │ branches u64 │ leaves u64 │ overflow pages u64 │ entries u64 │ root u64
//! ```

use std::collections::BTreeSet;

const HEADER: usize = 16;
const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;
const BIG_DATA: u16 = 1;
/// Flags of the free tree: its keys are transactions (8), and the file stands for itself, without a directory.
const FREE_FLAGS: u16 = 0x4008;
const NO_PAGE: u64 = u64::MAX;
const MAX_DEPTH: u16 = 32;

/// A file to read from: `(offset, length)` to that many bytes, fewer at its end.
pub type ReadAt<'a> = dyn FnMut(u64, usize) -> std::io::Result<Vec<u8>> + 'a;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Keys and records, in order of their keys as far as nothing is wrong.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// What is wrong, in words. When there is anything, LMDB must not open the file.
    pub faults: Vec<String>,
    /// Number of the transaction that wrote it last.
    pub transaction: u64,
}

/// One meta page.
#[derive(Debug, Clone, Copy)]
struct Meta {
    page_size: usize,
    free: Tree,
    main: Tree,
    last_page: u64,
    transaction: u64,
}

#[derive(Debug, Clone, Copy)]
struct Tree {
    flags: u16,
    depth: u16,
    branches: u64,
    leaves: u64,
    overflow: u64,
    entries: u64,
    root: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at + 2)?
        .try_into()
        .ok()
        .map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at + 8)?
        .try_into()
        .ok()
        .map(u64::from_ne_bytes)
}

impl Tree {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            flags: u16_at(bytes, 4)?,
            depth: u16_at(bytes, 6)?,
            branches: u64_at(bytes, 8)?,
            leaves: u64_at(bytes, 16)?,
            overflow: u64_at(bytes, 24)?,
            entries: u64_at(bytes, 32)?,
            root: u64_at(bytes, 40)?,
        })
    }
}

impl Meta {
    fn parse(page: &[u8]) -> Option<Self> {
        let body = page.get(HEADER..)?;
        let is_meta = u16_at(page, 10)? & META != 0;
        if !is_meta || u32_at(body, 0)? != MAGIC || u32_at(body, 4)? != VERSION {
            return None;
        }
        let page_size = usize::try_from(u32_at(body, 24)?).ok()?;
        if !(512..=65_536).contains(&page_size) || !page_size.is_power_of_two() {
            return None;
        }
        Some(Self {
            page_size,
            free: Tree::parse(body.get(24..)?)?,
            main: Tree::parse(body.get(72..)?)?,
            last_page: u64_at(body, 120)?,
            transaction: u64_at(body, 128)?,
        })
    }
}

/// Reads all of a file.
///
/// # Errors
/// What the system says when the file cannot be read; what is wrong with its content is in [`Contents::faults`].
pub fn read(file: &mut ReadAt<'_>) -> std::io::Result<Contents> {
    let mut contents = Contents::default();
    let first = file(0, 4096)?;
    let first_meta = Meta::parse(&first);
    // The second meta page stands where the first says; when that is unreadable, where pages of this machine would.
    let page_size = first_meta.map_or(4096, |meta| meta.page_size);
    let second_meta = Meta::parse(&file(page_size as u64, 4096)?);
    if first_meta.is_none() || second_meta.is_none() {
        contents.faults.push("a meta page is damaged".to_owned());
    }
    let metas = [first_meta, second_meta];
    let newest = metas
        .into_iter()
        .flatten()
        .max_by_key(|meta| meta.transaction);
    let Some(meta) = newest else {
        return Ok(contents);
    };
    contents.transaction = meta.transaction;
    let mut walk = Walk {
        file,
        meta,
        used: BTreeSet::from([0, 1]),
        contents,
        found: Found::default(),
    };
    if meta.main.flags != 0 || meta.free.flags != FREE_FLAGS {
        walk.fault("the flags of a tree are damaged".to_owned());
        return Ok(walk.contents);
    }
    walk.tree("main", meta.main)?;
    let entries = std::mem::take(&mut walk.contents.entries);
    walk.tree("free", meta.free)?;
    let free = std::mem::replace(&mut walk.contents.entries, entries);
    walk.check_free(&free);
    Ok(walk.contents)
}

#[derive(Default)]
struct Found {
    branches: u64,
    leaves: u64,
    overflow: u64,
    entries: u64,
}

struct Walk<'a, 'b> {
    file: &'a mut ReadAt<'b>,
    meta: Meta,
    used: BTreeSet<u64>,
    contents: Contents,
    found: Found,
}

/// Bounds of the keys below a branch: from, and before.
type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

struct Node<'a> {
    size: u32,
    flags: u16,
    key: &'a [u8],
    /// Where its data begins.
    data: usize,
}

impl Node<'_> {
    /// Bytes that it takes on its page.
    fn length(&self) -> usize {
        let data = if self.flags == 0 {
            self.size as usize
        } else {
            8
        };
        8 + self.key.len() + data
    }
}

fn node(page: &[u8], index: usize) -> Option<Node<'_>> {
    let at = usize::from(u16_at(page, HEADER + 2 * index)?);
    let length = usize::from(u16_at(page, at + 6)?);
    Some(Node {
        size: u32::from(u16_at(page, at)?) | u32::from(u16_at(page, at + 2)?) << 16,
        flags: u16_at(page, at + 4)?,
        key: page.get(at + 8..at + 8 + length)?,
        data: at + 8 + length,
    })
}

impl Walk<'_, '_> {
    fn fault(&mut self, text: String) {
        // A damaged file needs one reason, not thousands.
        if self.contents.faults.len() < 16 {
            self.contents.faults.push(text);
        }
    }

    fn tree(&mut self, name: &str, tree: Tree) -> std::io::Result<()> {
        self.found = Found::default();
        if tree.root != NO_PAGE {
            if tree.depth > MAX_DEPTH {
                self.fault(format!("the {name} tree is {} pages deep", tree.depth));
                return Ok(());
            }
            self.page(name, tree.root, tree.depth, (None, None))?;
        }
        let Found {
            branches,
            leaves,
            overflow,
            entries,
        } = self.found;
        let found = [branches, leaves, overflow, entries];
        let said = [tree.branches, tree.leaves, tree.overflow, tree.entries];
        if found != said {
            self.fault(format!(
                "the {name} tree has {found:?} branches, leaves, overflow pages and entries instead of {said:?}"
            ));
        }
        Ok(())
    }

    /// Reads `count` pages from `number` on, each for the first time.
    fn load(&mut self, number: u64, count: u64) -> std::io::Result<Option<Vec<u8>>> {
        let last = number.saturating_add(count - 1);
        if number < 2 || last > self.meta.last_page {
            self.fault(format!("page {last} is beyond the last page"));
            return Ok(None);
        }
        let size = self.meta.page_size as u64;
        // Its last byte first: nothing is kept or made room for that is not there.
        let end = last
            .checked_add(1)
            .and_then(|pages| pages.checked_mul(size));
        let is_there = match end {
            Some(end) => !(self.file)(end - 1, 1)?.is_empty(),
            None => false,
        };
        if !is_there {
            self.fault(format!("the file is cut off before page {last}"));
            return Ok(None);
        }
        for page in number..=last {
            if !self.used.insert(page) {
                self.fault(format!("page {page} is used twice"));
                return Ok(None);
            }
        }
        let Ok(length) = usize::try_from(count * size) else {
            return Ok(None);
        };
        let bytes = (self.file)(number * size, length)?;
        if bytes.len() != length {
            self.fault(format!("the file is cut off before page {last}"));
            return Ok(None);
        }
        if u64_at(&bytes, 0) != Some(number) {
            self.fault(format!("page {number} says that it is another"));
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// Walks the subtree of a page; `height` is 1 for a leaf.
    fn page(
        &mut self,
        tree: &str,
        number: u64,
        height: u16,
        bounds: Bounds<'_>,
    ) -> std::io::Result<()> {
        let Some(page) = self.load(number, 1)? else {
            return Ok(());
        };
        let flags = u16_at(&page, 10).unwrap_or_default();
        let lower = usize::from(u16_at(&page, 12).unwrap_or_default());
        let upper = usize::from(u16_at(&page, 14).unwrap_or_default());
        let expected = if height == 1 { LEAF } else { BRANCH };
        if flags != expected || height == 0 || lower < HEADER || lower > upper || upper > page.len()
        {
            self.fault(format!("page {number} of the {tree} tree is damaged"));
            return Ok(());
        }
        let count = (lower - HEADER) / 2;
        if height == 1 {
            self.found.leaves += 1;
            self.leaf(tree, number, &page, count, upper, bounds)
        } else {
            self.found.branches += 1;
            self.branch(tree, number, &page, count, height, bounds)
        }
    }

    fn branch(
        &mut self,
        tree: &str,
        number: u64,
        page: &[u8],
        count: usize,
        height: u16,
        bounds: Bounds<'_>,
    ) -> std::io::Result<()> {
        for index in 0..count {
            let Some(node) = node(page, index) else {
                self.fault(format!("page {number} of the {tree} tree is damaged"));
                continue;
            };
            // The first key of a branch stands for everything below the second.
            let from = if index == 0 { bounds.0 } else { Some(node.key) };
            let next = (index + 1 < count).then(|| self::node(page, index + 1));
            let before = match &next {
                Some(Some(next)) => Some(next.key),
                Some(None) | None => bounds.1,
            };
            let child = u64::from(node.size) | u64::from(node.flags) << 32;
            self.page(tree, child, height - 1, (from, before))?;
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        tree: &str,
        number: u64,
        page: &[u8],
        count: usize,
        upper: usize,
        bounds: Bounds<'_>,
    ) -> std::io::Result<()> {
        let in_order = |a: &[u8], b: &[u8]| match tree {
            "free" => u64_at(a, 0) < u64_at(b, 0),
            _ => a < b,
        };
        let mut last: Option<Vec<u8>> = None;
        // Nodes lie behind one another: together they are no longer than what the page has for them.
        let mut room = page.len() - upper;
        for index in 0..count {
            let parsed =
                node(page, index).filter(|node| node.data >= upper && !node.key.is_empty());
            let parsed = parsed.filter(|node| match room.checked_sub(node.length()) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            });
            let Some(node) = parsed else {
                self.fault(format!("page {number} of the {tree} tree is damaged"));
                continue;
            };
            let is_in_place = last.as_deref().is_none_or(|last| in_order(last, node.key))
                && bounds.0.is_none_or(|from| !in_order(node.key, from))
                && bounds.1.is_none_or(|before| in_order(node.key, before));
            if !is_in_place {
                self.fault(format!(
                    "a key on page {number} of the {tree} tree is out of order"
                ));
            }
            last = Some(node.key.to_vec());
            self.found.entries += 1;
            if let Some(data) = self.data(number, page, &node)? {
                self.contents.entries.push((node.key.to_vec(), data));
            }
        }
        Ok(())
    }

    fn data(
        &mut self,
        number: u64,
        page: &[u8],
        node: &Node<'_>,
    ) -> std::io::Result<Option<Vec<u8>>> {
        let size = node.size as usize;
        if node.flags == 0
            && let Some(data) = page.get(node.data..node.data + size)
        {
            return Ok(Some(data.to_vec()));
        }
        let (BIG_DATA, Some(first)) = (node.flags, u64_at(page, node.data)) else {
            self.fault(format!("a record on page {number} is damaged"));
            return Ok(None);
        };
        let count = (HEADER + size).div_ceil(self.meta.page_size) as u64;
        let Some(bytes) = self.load(first, count)? else {
            return Ok(None);
        };
        self.found.overflow += count;
        let pages = u32_at(&bytes, 12).map(u64::from);
        if u16_at(&bytes, 10) != Some(OVERFLOW) || pages != Some(count) {
            self.fault(format!("overflow page {first} is damaged"));
            return Ok(None);
        }
        Ok(Some(bytes[HEADER..HEADER + size].to_vec()))
    }

    /// Free pages must not be in use, and none may be free twice.
    fn check_free(&mut self, lists: &[(Vec<u8>, Vec<u8>)]) {
        for (_, list) in lists {
            let count = u64_at(list, 0).unwrap_or(NO_PAGE);
            let needed = count.checked_add(1).and_then(|n| n.checked_mul(8));
            if needed.is_none_or(|needed| needed > list.len() as u64) {
                self.fault("a list of free pages is damaged".to_owned());
                continue;
            }
            for number in list[8..]
                .chunks_exact(8)
                .zip(0..count)
                .filter_map(|(id, _)| u64_at(id, 0))
            {
                if number < 2 || number > self.meta.last_page || !self.used.insert(number) {
                    self.fault(format!("page {number} is free and in use"));
                }
            }
        }
    }
}

//! Amounts of resources under small numbers instead of names, for the sorters' arithmetic.
//!
//! Pure. Only scalars count; ranges and sets have no share. A name keeps its number as long as the allocator lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use meseta_protocol::resources::{Resources, Scalar, resource_name};

/// Number of a resource name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameId(usize);

/// How many names are known by their address before any text is compared: the well-known ones.
const BY_ADDRESS: usize = 4;

/// The names met so far.
#[derive(Debug)]
pub struct Names {
    ids: BTreeMap<Arc<str>, NameId>,
    names: Vec<Arc<str>>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self {
            ids: BTreeMap::new(),
            names: Vec::new(),
        };
        for name in ["cpus", "mem", "disk", "gpus"] {
            names.id(&resource_name(name));
        }
        names
    }
}

impl Names {
    /// The number of a name, a new one when it was not met before.
    pub fn id(&mut self, name: &Arc<str>) -> NameId {
        let first = self.names.iter().take(BY_ADDRESS);
        if let Some(at) = first.into_iter().position(|known| Arc::ptr_eq(known, name)) {
            return NameId(at);
        }
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = NameId(self.names.len());
        self.names.push(Arc::clone(name));
        self.ids.insert(Arc::clone(name), id);
        id
    }

    /// The name of a number.
    pub fn name(&self, id: NameId) -> &str {
        &self.names[id.0]
    }

    /// All names in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, NameId)> {
        let numbered = self.names.iter().enumerate();
        numbered.map(|(at, name)| (name, NameId(at)))
    }

    /// The scalars of a collection, summed by name.
    pub fn amounts(&mut self, resources: &Resources) -> Amounts {
        let mut out = Amounts::default();
        for resource in resources.iter() {
            if let Some(amount) = resource.amount() {
                out.add(self.id(&resource.name), amount);
            }
        }
        out
    }
}

/// A few amounts; names that are not listed have none. In the order of the numbers, without zeros, so that equal
/// amounts are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(Vec<(NameId, Scalar)>);

impl Amounts {
    /// Nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an amount, which may be negative.
    pub fn add(&mut self, id: NameId, amount: Scalar) {
        match self.0.binary_search_by_key(&id, |entry| entry.0) {
            Ok(at) => {
                self.0[at].1 += amount;
                if self.0[at].1 == Scalar::ZERO {
                    self.0.remove(at);
                }
            }
            Err(at) if amount != Scalar::ZERO => self.0.insert(at, (id, amount)),
            Err(_) => {}
        }
    }

    /// Adds all amounts of `other`.
    pub fn add_all(&mut self, other: &Self) {
        for (id, amount) in other.iter() {
            self.add(id, amount);
        }
    }

    /// Subtracts all amounts of `other`.
    pub fn subtract_all(&mut self, other: &Self) {
        for (id, amount) in other.iter() {
            self.add(id, Scalar::ZERO - amount);
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The amounts in the order of the numbers.
    pub fn iter(&self) -> impl Iterator<Item = (NameId, Scalar)> + '_ {
        self.0.iter().copied()
    }

    /// The amount of one name.
    pub fn get(&self, id: NameId) -> Scalar {
        self.0
            .binary_search_by_key(&id, |entry| entry.0)
            .map_or(Scalar::ZERO, |at| self.0[at].1)
    }
}

/// What all agents have together: the measure of every share.
#[derive(Debug, Default)]
pub struct Totals {
    amounts: Vec<Scalar>,
    excluded: Vec<NameId>,
    version: u64,
}

impl Totals {
    /// Nothing yet; shares of the names in `excluded` will not count.
    pub fn new(excluded: Vec<NameId>) -> Self {
        Self {
            excluded,
            ..Self::default()
        }
    }

    /// Counts the changes; shares worked out under another version are stale.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Adds an agent's amounts.
    pub fn add(&mut self, amounts: &Amounts) {
        self.change(amounts, |have, amount| have + amount);
    }

    /// Takes an agent's amounts away.
    pub fn subtract(&mut self, amounts: &Amounts) {
        self.change(amounts, |have, amount| have - amount);
    }

    fn change(&mut self, amounts: &Amounts, with: impl Fn(Scalar, Scalar) -> Scalar) {
        for (NameId(at), amount) in amounts.iter() {
            if self.amounts.len() <= at {
                self.amounts.resize(at + 1, Scalar::ZERO);
            }
            self.amounts[at] = with(self.amounts[at], amount);
            self.version += 1;
        }
    }

    /// Every name's total that is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (NameId, Scalar)> + '_ {
        let all = self.amounts.iter().enumerate();
        all.map(|(at, amount)| (NameId(at), *amount))
            .filter(|(_, amount)| *amount != Scalar::ZERO)
    }

    /// The dominant share of `held`: the largest part of any one total.
    pub fn dominant_share(&self, held: &Amounts) -> f64 {
        let mut share = 0.0f64;
        for (id, amount) in held.iter() {
            let total = self.amounts.get(id.0).copied().unwrap_or_default();
            if total.is_positive() && !self.excluded.contains(&id) {
                // Quotients of whole numbers of thousandths: equal fractions give equal shares.
                let part = amount.thousandths() as f64 / total.thousandths() as f64;
                share = share.max(part);
            }
        }
        share
    }
}

//! Ranges: sets of whole numbers written as closed intervals, for example ports.
//!
//! Pure. Invariant: intervals are sorted, disjoint and not adjacent, so equal sets are equal values. Source: Mesos
//! `src/common/values.cpp`.

use std::fmt;

/// One closed interval; `begin <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// First number of the interval.
    pub begin: u64,
    /// Last number of the interval.
    pub end: u64,
}

/// A set of whole numbers as coalesced intervals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// The union of some intervals. Those with `begin > end` hold no number and are dropped.
    pub fn new(intervals: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut sorted: Vec<Range> = intervals
            .into_iter()
            .filter(|(begin, end)| begin <= end)
            .map(|(begin, end)| Range { begin, end })
            .collect();
        sorted.sort_unstable();
        let mut out: Vec<Range> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match out.last_mut() {
                Some(last) if range.begin <= last.end.saturating_add(1) => {
                    last.end = last.end.max(range.end);
                }
                _ => out.push(range),
            }
        }
        Self(out)
    }

    /// The intervals in order.
    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }

    /// Whether there is no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are; saturates for the full range.
    pub fn size(&self) -> u64 {
        self.0.iter().fold(0u64, |sum, range| {
            sum.saturating_add((range.end - range.begin).saturating_add(1))
        })
    }

    /// Whether `number` is in the set.
    pub fn has(&self, number: u64) -> bool {
        self.0
            .iter()
            .any(|range| range.begin <= number && number <= range.end)
    }

    /// The numbers in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|range| range.begin..=range.end)
    }

    /// Whether every number of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        let mut mine = self.0.iter();
        let mut current = mine.next();
        // Both sides are sorted, and an interval of `other` must fit in one of ours because ours are not adjacent.
        other.0.iter().all(|wanted| {
            while let Some(range) = current {
                if range.end >= wanted.begin {
                    return range.begin <= wanted.begin && wanted.end <= range.end;
                }
                current = mine.next();
            }
            false
        })
    }

    /// Adds the numbers of `other`.
    pub fn add(&mut self, other: &Self) {
        let all = self.0.iter().chain(&other.0);
        *self = Self::new(all.map(|range| (range.begin, range.end)));
    }

    /// Takes the numbers of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        let mut left = Vec::with_capacity(self.0.len() + other.0.len());
        for range in &self.0 {
            // `next` is the first number not yet decided; none when the range is used up at u64::MAX.
            let mut next = Some(range.begin);
            for cut in other.0.iter().filter(|cut| cut.end >= range.begin) {
                let Some(begin) = next.filter(|begin| *begin <= range.end) else {
                    break;
                };
                if cut.begin > range.end {
                    break;
                }
                if cut.begin > begin {
                    left.push(Range {
                        begin,
                        end: cut.begin - 1,
                    });
                }
                next = cut.end.checked_add(1).map(|after| after.max(begin));
            }
            if let Some(begin) = next.filter(|begin| *begin <= range.end) {
                left.push(Range {
                    begin,
                    end: range.end,
                });
            }
        }
        self.0 = left;
    }

    /// Whether the two sets share a number.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0
            .iter()
            .any(|a| other.0.iter().any(|b| a.begin <= b.end && b.begin <= a.end))
    }
}

/// `[1-2, 5-9]`.
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}-{}", range.begin, range.end)?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn model(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.numbers().collect()
    }

    fn some_ranges() -> impl Strategy<Value = Ranges> {
        proptest::collection::vec((0u64..40, 0u64..6), 0..6)
            .prop_map(|raw| Ranges::new(raw.into_iter().map(|(begin, size)| (begin, begin + size))))
    }

    proptest! {
        #[test]
        fn agrees_with_sets_of_numbers(a in some_ranges(), b in some_ranges()) {
            let (ma, mb) = (model(&a), model(&b));
            let mut sum = a.clone();
            sum.add(&b);
            prop_assert_eq!(model(&sum), ma.union(&mb).copied().collect());
            let mut rest = a.clone();
            rest.subtract(&b);
            prop_assert_eq!(model(&rest), ma.difference(&mb).copied().collect());
            prop_assert_eq!(a.contains(&b), ma.is_superset(&mb));
            prop_assert_eq!(a.overlaps(&b), !ma.is_disjoint(&mb));
            prop_assert_eq!(a == b, ma == mb);
            prop_assert_eq!(a.size(), ma.len() as u64);
        }

        #[test]
        fn stays_coalesced(a in some_ranges(), b in some_ranges()) {
            for result in [
                { let mut x = a.clone(); x.add(&b); x },
                { let mut x = a.clone(); x.subtract(&b); x },
            ] {
                prop_assert!(result.as_slice().iter().all(|r| r.begin <= r.end));
                prop_assert!(result.as_slice().windows(2).all(|w| w[0].end + 1 < w[1].begin));
            }
        }
    }

    #[test]
    fn reaches_the_end_of_the_numbers() {
        let all = Ranges::new([(0, u64::MAX)]);
        let mut rest = all.clone();
        rest.subtract(&Ranges::new([(5, u64::MAX)]));
        assert_eq!(rest.to_string(), "[0-4]");
        rest.add(&Ranges::new([(5, u64::MAX)]));
        assert_eq!(rest, all);
        assert_eq!(all.size(), u64::MAX);
    }
}

//! Who keeps a replica, and in which life.
//!
//! Pure: plain values. A member that lost its disk has forgotten what it promised. Its answers of before must not be
//! counted together with what others say after they have heard of the loss. So each store has a *life*: a number that
//! rises when a member begins anew, and a nonce that tells apart two lives that took the same number. Whoever answers
//! a beginner writes its life down first, and names the lives it knows in each vote from then on (a crash vector).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A member of the log, by the address of its node: `host:port`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Member(Arc<str>);

impl Member {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Member {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a life: 1 for a member's first store, 0 before it has begun one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// A member's first.
    pub const FIRST: Self = Self(1);

    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One life of a member.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Life {
    /// Its number.
    pub incarnation: Incarnation,
    /// Drawn at its beginning. 0 is nobody's: so is marked a number that two lives have taken.
    pub nonce: u64,
}

/// The latest life that is known of each member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lives(BTreeMap<Member, Life>);

impl Lives {
    /// What is known of a member.
    pub fn get(&self, member: &Member) -> Life {
        self.0.get(member).copied().unwrap_or_default()
    }

    /// Takes a life into account. Of two with one number neither stays valid: the number is kept with no nonce.
    /// True when something changed.
    pub fn note(&mut self, member: &Member, life: Life) -> bool {
        let known = self.get(member);
        let now = if known.incarnation == life.incarnation && known.nonce != life.nonce {
            Life {
                incarnation: known.incarnation,
                nonce: 0,
            }
        } else {
            known.max(life)
        };
        if now != known {
            self.0.insert(member.clone(), now);
        }
        now != known
    }

    /// Takes all that another knows into account.
    pub fn merge(&mut self, other: &Self) {
        for (member, life) in &other.0 {
            self.note(member, *life);
        }
    }

    /// What a vote has to tell: members that have begun anew. A first life makes no answer old, so it is left out.
    pub fn reborn(&self) -> BTreeMap<Member, Incarnation> {
        let later = |life: &Life| life.incarnation > Incarnation::FIRST;
        self.0
            .iter()
            .filter(|(_, life)| later(life))
            .map(|(member, life)| (member.clone(), life.incarnation))
            .collect()
    }

    /// All members with their lives.
    pub fn iter(&self) -> impl Iterator<Item = (&Member, &Life)> {
        self.0.iter()
    }
}

impl FromIterator<(Member, Life)> for Lives {
    fn from_iter<T: IntoIterator<Item = (Member, Life)>>(lives: T) -> Self {
        Self(lives.into_iter().collect())
    }
}

//! Effects of one process on their way: in order, and held back behind an operation under [`Gate::HoldUser`] or
//! [`Gate::HoldEffects`].
//!
//! Invariant: effects come out in the order in which turns appended them; between the effect that begins
//! a held operation and [`Line::release`] none comes out, but for later operations under [`Gate::HoldEffects`], which
//! begin at once while nothing but such operations holds; what the outcome's continuation appends comes after what
//! waited for it, unless the continuation stops the process, which drops what waited.

use std::collections::{BTreeSet, VecDeque};

use crate::context::{Effect, Gate};

/// Effects that may wait behind operations under [`Gate::HoldEffects`] before user messages wait too.
const MOST_WAITING: usize = 4096;

/// A place in the line.
enum Entry {
    /// To be carried out.
    Effect(Effect),
    /// The operation of this number has begun, and what comes after it waits for its outcome.
    Begun(u64),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Line {
    /// Operations that begin ahead of what waits.
    ahead: VecDeque<Effect>,
    waiting: VecDeque<Entry>,
    /// Number of the operation under [`Gate::HoldUser`], if one is under way.
    holding: Option<u64>,
    /// Operations under [`Gate::HoldEffects`] that are under way.
    begun: BTreeSet<u64>,
}

impl Line {
    /// Appends the effects of a turn.
    pub(crate) fn push(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            let ahead = if let Effect::Run { number, gate, .. } = &effect
                && *gate == Gate::HoldEffects
                && self.only_effects_are_held()
            {
                Some(*number)
            } else {
                None
            };
            let entry = match ahead {
                Some(number) => {
                    self.begun.insert(number);
                    self.ahead.push_back(effect);
                    Entry::Begun(number)
                }
                None => Entry::Effect(effect),
            };
            self.waiting.push_back(entry);
        }
    }

    /// Whether all that waits does so for operations under [`Gate::HoldEffects`] alone: the front has begun one, and
    /// nobody who waits holds user messages.
    fn only_effects_are_held(&self) -> bool {
        let holds_user = |entry: &Entry| {
            let Entry::Effect(Effect::Run { gate, .. }) = entry else {
                return false;
            };
            *gate == Gate::HoldUser
        };
        self.holding.is_none()
            && matches!(self.waiting.front(), Some(Entry::Begun(_)))
            && !self.waiting.iter().any(holds_user)
    }

    /// The next effect to be carried out; none while an operation holds, or when nothing waits.
    pub(crate) fn pop(&mut self) -> Option<Effect> {
        if let Some(ahead) = self.ahead.pop_front() {
            return Some(ahead);
        }
        if self.holding.is_some() {
            return None;
        }
        self.drop_done();
        if let Entry::Begun(_) = self.waiting.front()? {
            return None;
        }
        let Some(Entry::Effect(effect)) = self.waiting.pop_front() else {
            return None;
        };
        if let Effect::Run { number, gate, .. } = &effect {
            match gate {
                Gate::HoldUser => self.holding = Some(*number),
                Gate::HoldEffects => {
                    self.begun.insert(*number);
                    self.waiting.push_front(Entry::Begun(*number));
                    self.begin_followers();
                }
                Gate::Interleave => {}
            }
        }
        Some(effect)
    }

    /// Operations that wait behind one that has begun, and may begin at once.
    fn begin_followers(&mut self) {
        for entry in &mut self.waiting {
            let Entry::Effect(Effect::Run { number, gate, .. }) = entry else {
                continue;
            };
            match gate {
                Gate::HoldUser => return,
                Gate::Interleave => {}
                Gate::HoldEffects => {
                    let number = *number;
                    self.begun.insert(number);
                    if let Entry::Effect(effect) = std::mem::replace(entry, Entry::Begun(number)) {
                        self.ahead.push_back(effect);
                    }
                }
            }
        }
    }

    /// Whether effects have to go through [`Line::push`] and [`Line::pop`] to keep their order.
    pub(crate) fn is_closed(&self) -> bool {
        self.holding.is_some() || !self.waiting.is_empty() || !self.ahead.is_empty()
    }

    /// Whether `pop` would give something.
    pub(crate) fn is_due(&self) -> bool {
        let next = self.waiting.iter().find(|entry| !self.is_done(entry));
        !self.ahead.is_empty() || self.holding.is_none() && matches!(next, Some(Entry::Effect(_)))
    }

    /// Whether this is an operation whose outcome has come.
    fn is_done(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Begun(number) if !self.begun.contains(number))
    }

    /// Drops operations at the front whose outcome has come.
    fn drop_done(&mut self) {
        while let Some(first) = self.waiting.front()
            && self.is_done(first)
        {
            self.waiting.pop_front();
        }
    }

    /// Whether user messages wait.
    pub(crate) fn is_held(&self) -> bool {
        self.holding.is_some() || self.waiting.len() >= MOST_WAITING
    }

    /// Whether something waits for this operation.
    pub(crate) fn is_held_by(&self, number: u64) -> bool {
        self.holding == Some(number) || self.begun.contains(&number)
    }

    /// The held operation is done and its continuation has appended `effects`.
    pub(crate) fn release(&mut self, number: u64, effects: impl IntoIterator<Item = Effect>) {
        let effects: Vec<Effect> = effects.into_iter().collect();
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Stop(_)))
        {
            self.waiting.clear();
            self.ahead.clear();
            self.begun.clear();
            self.holding = None;
        }
        if self.holding == Some(number) {
            self.holding = None;
        }
        self.begun.remove(&number);
        self.drop_done();
        self.push(effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::AnyOp;
    use crate::links::ExitReason;

    fn run(number: u64, gate: Gate) -> Effect {
        let op = AnyOp {
            type_id: std::any::TypeId::of::<()>(),
            name: "op",
            op: Box::new(()),
        };
        Effect::Run { number, op, gate }
    }

    fn other(number: u64) -> Effect {
        Effect::AskRefused { number }
    }

    fn pop_all(line: &mut Line) -> Vec<String> {
        std::iter::from_fn(|| {
            let due = line.is_due();
            let popped = line.pop();
            assert_eq!(due, popped.is_some());
            popped
        })
        .map(|effect| {
            if let Effect::Run { number, .. } = effect {
                format!("run {number}")
            } else if let Effect::AskRefused { number } = effect {
                format!("{number}")
            } else {
                "other".to_owned()
            }
        })
        .collect()
    }

    #[test]
    fn effects_wait_for_the_operations_before_them_which_begin_at_once() {
        let mut line = Line::default();
        line.push([other(1), run(10, Gate::HoldEffects), other(2)]);
        assert_eq!(pop_all(&mut line), ["1", "run 10"]);
        line.push([other(3), run(11, Gate::HoldEffects), other(4)]);
        assert_eq!(pop_all(&mut line), ["run 11"]);
        assert!(!line.is_held() && line.is_closed() && line.is_held_by(11));
        line.release(10, [other(5)]);
        assert_eq!(pop_all(&mut line), ["2", "3"]);
        line.release(11, []);
        assert_eq!(pop_all(&mut line), ["4", "5"]);
        assert!(!line.is_closed());
    }

    #[test]
    fn outcomes_may_come_in_another_order_than_operations() {
        let mut line = Line::default();
        line.push([
            run(10, Gate::HoldEffects),
            other(1),
            run(11, Gate::HoldEffects),
            other(2),
        ]);
        assert_eq!(pop_all(&mut line), ["run 10", "run 11"]);
        line.release(11, []);
        assert_eq!(pop_all(&mut line), [""; 0]);
        line.release(10, []);
        assert_eq!(pop_all(&mut line), ["1", "2"]);
    }

    #[test]
    fn an_operation_that_holds_messages_begins_in_its_turn() {
        let mut line = Line::default();
        line.push([run(10, Gate::HoldEffects), run(11, Gate::HoldUser)]);
        line.push([other(1), run(12, Gate::HoldEffects), other(2)]);
        assert_eq!(pop_all(&mut line), ["run 10"]);
        assert!(!line.is_held());
        line.release(10, []);
        assert_eq!(pop_all(&mut line), ["run 11"]);
        assert!(line.is_held());
        line.release(11, []);
        assert_eq!(pop_all(&mut line), ["1", "run 12"]);
        line.release(12, []);
        assert_eq!(pop_all(&mut line), ["2"]);
    }

    #[test]
    fn messages_wait_when_too_many_effects_do() {
        let mut line = Line::default();
        line.push([run(10, Gate::HoldEffects)]);
        assert_eq!(pop_all(&mut line), ["run 10"]);
        line.push((0..MOST_WAITING as u64).map(other));
        assert!(line.is_held());
        line.release(10, []);
        assert!(!line.is_held() || line.is_due());
        assert_eq!(pop_all(&mut line).len(), MOST_WAITING);
        assert!(!line.is_held());
    }

    #[test]
    fn a_stop_drops_what_waited() {
        let mut line = Line::default();
        line.push([run(10, Gate::HoldEffects), other(1)]);
        assert_eq!(pop_all(&mut line), ["run 10"]);
        line.push([run(11, Gate::HoldEffects), other(2)]);
        line.release(10, [Effect::Stop(ExitReason::Normal)]);
        assert_eq!(pop_all(&mut line), ["other"]);
    }
}

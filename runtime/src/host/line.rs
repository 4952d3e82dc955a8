//! Effects of one process on their way: in order, and held back behind an operation under [`Gate::HoldUser`].
//!
//! Invariant: effects come out in the order in which turns appended them; between the effect that begins
//! a held operation and [`Line::release`] none comes out; what the outcome's continuation appends comes after what
//! waited for it, unless the continuation stops the process, which drops what waited.

use std::collections::VecDeque;

use crate::context::{Effect, Gate};

/// See the module.
#[derive(Default)]
pub(crate) struct Line {
    waiting: VecDeque<Effect>,
    /// Number of the operation under [`Gate::HoldUser`], if one is under way.
    holding: Option<u64>,
}

impl Line {
    /// Appends the effects of a turn.
    pub(crate) fn push(&mut self, effects: impl IntoIterator<Item = Effect>) {
        self.waiting.extend(effects);
    }

    /// The next effect to be carried out; none while an operation holds, or when nothing waits.
    pub(crate) fn pop(&mut self) -> Option<Effect> {
        if self.holding.is_some() {
            return None;
        }
        let effect = self.waiting.pop_front()?;
        if let Effect::Run {
            number,
            gate: Gate::HoldUser,
            ..
        } = effect
        {
            self.hold(number);
        }
        Some(effect)
    }

    /// All that waits, for a host that carries out effect after effect itself: with the first that begins a held
    /// operation it calls [`Line::hold`], and puts those after it back.
    pub(crate) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.waiting).into()
    }

    /// From now on effects and user messages wait for this operation.
    pub(crate) fn hold(&mut self, number: u64) {
        self.holding = Some(number);
    }

    /// Whether `pop` would give something.
    pub(crate) fn is_due(&self) -> bool {
        self.holding.is_none() && !self.waiting.is_empty()
    }

    /// Whether user messages wait.
    pub(crate) fn is_held(&self) -> bool {
        self.holding.is_some()
    }

    /// Whether this operation is the one that holds.
    pub(crate) fn is_held_by(&self, number: u64) -> bool {
        self.holding == Some(number)
    }

    /// The held operation is done and its continuation has appended `effects`.
    pub(crate) fn release(&mut self, effects: impl IntoIterator<Item = Effect>) {
        let effects: Vec<Effect> = effects.into_iter().collect();
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Stop(_)))
        {
            self.waiting.clear();
        }
        self.holding = None;
        self.waiting.extend(effects);
    }
}

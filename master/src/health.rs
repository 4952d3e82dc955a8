//! Health of one agent: how many pings in a row it has left unanswered.
//!
//! Pure: the caller's timer decides when a ping is due. Source: master.md §4.1.
//!
//! ```text
//!   PingDue ── answered since the last ping ──> Ping, missed = 0
//!           ── not answered, missed + 1 < limit ──> Ping
//!           ── not answered, missed + 1 = limit ──> Unreachable
//! ```

/// What follows from a due ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send the next ping.
    Ping,
    /// The agent has missed too many: mark it unreachable.
    Unreachable,
}

/// Answers of one agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    missed: u32,
    waiting: bool,
}

impl Health {
    /// A ping is due. `limit` is how many may be missed in a row, at least 1.
    pub fn ping_due(&mut self, limit: u32) -> Verdict {
        if self.waiting {
            self.missed += 1;
            if self.missed >= limit {
                return Verdict::Unreachable;
            }
        }
        self.waiting = true;
        Verdict::Ping
    }

    /// The agent has answered.
    pub fn pong(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_missed_ping_in_a_row_makes_it_unreachable() {
        let mut health = Health::default();
        for _ in 0..5 {
            assert_eq!(health.ping_due(5), Verdict::Ping);
        }
        assert_eq!(health.ping_due(5), Verdict::Unreachable);
    }

    #[test]
    fn any_answer_starts_the_count_anew() {
        let mut health = Health::default();
        for _ in 0..5 {
            health.ping_due(5);
        }
        health.pong();
        for _ in 0..5 {
            assert_eq!(health.ping_due(5), Verdict::Ping);
        }
    }
}

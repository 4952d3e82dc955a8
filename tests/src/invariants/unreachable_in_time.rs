//! G-2: an agent is called unreachable only after the full time-out, and removals keep to the rate.
//!
//! Pure. Seen from each master for itself, since a new one begins to wait anew: an agent that is in has been silent for as
//! long as all pings take that it may miss; one that is away has been so for the time it has to come back, or has also
//! missed all pings; one that the master knows from the registry only has had that time since the master began to lead.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_protocol::AgentId;
use meseta_runtime::Time;

/// The full time-outs, with what clocks may be off already taken away.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For answers to pings.
    pub silence: Duration,
    /// For coming back.
    pub absence: Duration,
    /// Between two removals; zero without a rate.
    pub distance: Duration,
}

/// What one master knows of one agent.
#[derive(Debug)]
struct Contact {
    /// When it came in or answered last.
    heard: Time,
    /// Since when it is away.
    away: Option<Time>,
}

/// One master that leads.
#[derive(Debug)]
struct Leader {
    since: Time,
    contacts: BTreeMap<AgentId, Contact>,
    marked: Option<Time>,
}

/// See the module. Masters are named by `M`.
#[derive(Debug)]
pub struct UnreachableInTime<M> {
    limits: Limits,
    leaders: BTreeMap<M, Leader>,
}

impl<M: Ord> UnreachableInTime<M> {
    /// With these time-outs.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            leaders: BTreeMap::new(),
        }
    }

    /// A master leads no more, or is another from now on.
    pub fn ends(&mut self, master: &M) {
        self.leaders.remove(master);
    }

    /// A master leads, and has these agents: which, and whether they are connected.
    pub fn leads<'a>(
        &mut self,
        master: M,
        now: Time,
        agents: impl Iterator<Item = (&'a AgentId, bool)>,
    ) {
        let leader = self.leaders.entry(master).or_insert_with(|| Leader {
            since: now,
            contacts: BTreeMap::new(),
            marked: None,
        });
        let mut before = std::mem::take(&mut leader.contacts);
        for (id, connected) in agents {
            let mut contact = before.remove(id).unwrap_or(Contact {
                heard: now,
                away: None,
            });
            match (connected, contact.away) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(_)) => {
                    contact = Contact {
                        heard: now,
                        away: None,
                    };
                }
                (false, None) => contact.away = Some(now),
            }
            leader.contacts.insert(id.clone(), contact);
        }
    }

    /// A master hears an agent's answer to a ping.
    pub fn answers(&mut self, master: &M, id: &AgentId, now: Time) {
        let leader = self.leaders.get_mut(master);
        if let Some(contact) = leader.and_then(|leader| leader.contacts.get_mut(id)) {
            contact.heard = now;
        }
    }

    /// A master has it stored that an agent is unreachable.
    ///
    /// # Errors
    /// How long it should have waited.
    pub fn marks(&mut self, master: &M, id: &AgentId, now: Time) -> Result<(), String> {
        let Limits {
            silence,
            absence,
            distance,
        } = self.limits;
        let Some(leader) = self.leaders.get_mut(master) else {
            return Err(format!(
                "{id} is marked unreachable by a master that does not lead"
            ));
        };
        if let Some(last) = leader.marked.replace(now)
            && now.since(last) < distance
        {
            let after = now.since(last);
            return Err(format!(
                "{id} is marked unreachable {after:?} after another, and {distance:?} have to lie between"
            ));
        }
        let Some(contact) = leader.contacts.get(id) else {
            let waited = now.since(leader.since);
            return at_least(waited, absence, &format!("{id}, which has not come back,"));
        };
        let silent = now.since(contact.heard);
        match contact.away {
            Some(since) if silent < silence => {
                let away = now.since(since);
                at_least(away, absence, &format!("{id}, which is away,"))
            }
            Some(_) => Ok(()),
            None => at_least(silent, silence, &format!("{id}, which is in,")),
        }
    }
}

fn at_least(waited: Duration, limit: Duration, who: &str) -> Result<(), String> {
    if waited >= limit {
        return Ok(());
    }
    Err(format!(
        "{who} is marked unreachable after {waited:?}, and has {limit:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn law() -> UnreachableInTime<&'static str> {
        UnreachableInTime::new(Limits {
            silence: Duration::from_secs(75),
            absence: Duration::from_secs(600),
            distance: Duration::from_secs(20),
        })
    }

    fn agents(all: &[(&str, bool)]) -> Vec<(AgentId, bool)> {
        let all = all.iter();
        all.map(|(id, connected)| (AgentId::new(*id), *connected))
            .collect()
    }

    fn leads(law: &mut UnreachableInTime<&'static str>, seconds: u64, all: &[(&str, bool)]) {
        let all = agents(all);
        law.leads("m", at(seconds), all.iter().map(|(id, is)| (id, *is)));
    }

    #[test]
    fn refuses_a_mark_before_the_full_time() {
        let mut law = law();
        let id = AgentId::new("a");
        assert!(law.marks(&"m", &id, at(9_000)).is_err(), "it does not lead");
        leads(&mut law, 10, &[("a", true)]);
        law.answers(&"m", &id, at(100));
        assert!(law.marks(&"m", &id, at(174)).is_err(), "it has answered");
        leads(&mut law, 200, &[("a", true)]);
        leads(&mut law, 210, &[("a", false)]);
        law.answers(&"m", &id, at(800));
        assert!(law.marks(&"m", &id, at(809)).is_err(), "it may come back");
        leads(&mut law, 820, &[("a", true)]);
        assert!(law.marks(&"m", &id, at(890)).is_err(), "it is back");
        assert!(law.marks(&"m", &"b".into(), at(609)).is_err(), "awaited");
        law.ends(&"m");
        leads(&mut law, 900, &[]);
        assert!(law.marks(&"m", &id, at(1_499)).is_err(), "awaited anew");
    }

    #[test]
    fn refuses_marks_that_come_too_fast() {
        let mut law = law();
        leads(&mut law, 0, &[]);
        assert_eq!(law.marks(&"m", &"a".into(), at(600)), Ok(()));
        assert!(law.marks(&"m", &"b".into(), at(619)).is_err());
        assert_eq!(law.marks(&"m", &"c".into(), at(639)), Ok(()));
    }

    #[test]
    fn accepts_marks_in_time() {
        let mut law = law();
        leads(&mut law, 0, &[("a", true), ("b", true), ("c", true)]);
        assert_eq!(law.marks(&"m", &"a".into(), at(75)), Ok(()));
        leads(&mut law, 80, &[("b", true), ("c", false)]);
        assert_eq!(
            law.marks(&"m", &"c".into(), at(95)),
            Ok(()),
            "no answer either"
        );
        law.answers(&"m", &"b".into(), at(90));
        leads(&mut law, 100, &[("b", false)]);
        law.answers(&"m", &"b".into(), at(690));
        assert_eq!(law.marks(&"m", &"b".into(), at(700)), Ok(()));
        assert_eq!(law.marks(&"m", &"d".into(), at(720)), Ok(()), "awaited");
    }
}

//! G-1: an agent keeps its id over its restarts, and no id is ever another agent's, or again that of an agent that has had
//! another since.
//!
//! Pure. Agents are named by their PIDs, which stay the same from run to run.

use std::collections::BTreeMap;

use meseta_protocol::AgentId;

/// See the module.
#[derive(Debug, Default)]
pub struct AgentsKeepTheirIds {
    /// Who has or had each id, and whether it still is the last id of that agent.
    holders: BTreeMap<AgentId, (String, bool)>,
    /// The id that the disk of each agent held when its present run began.
    written: BTreeMap<String, AgentId>,
}

impl AgentsKeepTheirIds {
    /// A run of an agent begins, with this id on its disk.
    pub fn begins(&mut self, agent: &str, written: Option<AgentId>) {
        match written {
            Some(id) => self.written.insert(agent.to_owned(), id),
            None => self.written.remove(agent),
        };
    }

    /// An agent goes by this id.
    ///
    /// # Errors
    /// Whose it is, or which one the agent should have.
    pub fn is(&mut self, agent: &str, id: &AgentId) -> Result<(), String> {
        match self.holders.get(id) {
            Some((holder, true)) if holder == agent => return Ok(()),
            Some((holder, _)) => {
                return Err(format!("{agent} goes by {id}, which is or was {holder}'s"));
            }
            None => {}
        }
        if let Some(written) = self.written.get(agent) {
            return Err(format!(
                "{agent} goes by {id}, and has written down {written}"
            ));
        }
        for (holder, is_last) in self.holders.values_mut() {
            if holder == agent {
                *is_last = false;
            }
        }
        self.holders.insert(id.clone(), (agent.to_owned(), true));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_id_that_is_not_its_own() {
        let mut law = AgentsKeepTheirIds::default();
        assert_eq!(law.is("a", &"S0".into()), Ok(()));
        assert!(law.is("b", &"S0".into()).is_err(), "another's");
        law.begins("a", Some("S0".into()));
        assert!(law.is("a", &"S1".into()).is_err(), "it has one");
        law.begins("a", None);
        assert_eq!(law.is("a", &"S2".into()), Ok(()));
        assert!(law.is("a", &"S0".into()).is_err(), "given up");
        assert!(law.is("b", &"S0".into()).is_err(), "was another's");
    }

    #[test]
    fn accepts_an_agent_that_stays_the_same_or_begins_anew_without_its_disk() {
        let mut law = AgentsKeepTheirIds::default();
        for written in [None, Some("S0".into()), Some("S0".into())] {
            law.begins("a", written);
            assert_eq!(law.is("a", &"S0".into()), Ok(()));
        }
        law.begins("a", None);
        assert_eq!(law.is("a", &"S1".into()), Ok(()));
        assert_eq!(law.is("b", &"S2".into()), Ok(()));
    }
}

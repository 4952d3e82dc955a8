//! T-7: each update is acknowledged once in effect. After its acknowledgement has reached the agent it is never sent again,
//! over restarts too when the agent had made it durable.
//!
//! Pure. Told of acknowledgements that reach an agent, of updates that leave it, and of what waits when its next run has
//! read its disk. That foreign and repeated acknowledgements change nothing is seen by law T-6: nothing leaves a stream by
//! them.

use std::collections::BTreeSet;

use meseta_protocol::UpdateId;

/// What is over on one agent, over all its runs.
#[derive(Debug, Default)]
pub struct AcknowledgedIsOver {
    over: BTreeSet<UpdateId>,
}

impl AcknowledgedIsOver {
    /// The acknowledgement of the update in flight has reached the agent, from the master it obeys.
    pub fn acknowledged(&mut self, uuid: UpdateId) {
        self.over.insert(uuid);
    }

    /// A run of the agent has read what the one before it has left, and so much waits: of that it had not made the
    /// acknowledgement durable.
    pub fn recovers(&mut self, waiting: &BTreeSet<UpdateId>) {
        self.over.retain(|uuid| !waiting.contains(uuid));
    }

    /// The agent sends an update.
    ///
    /// # Errors
    /// It is over.
    pub fn sends(&self, uuid: UpdateId) -> Result<(), String> {
        if self.over.contains(&uuid) {
            return Err(format!("update {uuid} is sent after its acknowledgement"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_sent_again_until_it_is_acknowledged_and_not_after() {
        let mut law = AcknowledgedIsOver::default();
        let (one, other) = (UpdateId::from_bytes([1; 16]), UpdateId::from_bytes([2; 16]));
        assert_eq!((law.sends(one), law.sends(one)), (Ok(()), Ok(())));
        law.acknowledged(one);
        assert!(law.sends(one).is_err());
        assert_eq!(law.sends(other), Ok(()));
    }

    #[test]
    fn a_restart_brings_back_only_what_was_not_acknowledged_for_good() {
        let mut law = AcknowledgedIsOver::default();
        let (durable, lost) = (UpdateId::from_bytes([1; 16]), UpdateId::from_bytes([2; 16]));
        law.acknowledged(durable);
        law.acknowledged(lost);
        law.recovers(&BTreeSet::from([lost]));
        assert_eq!(law.sends(lost), Ok(()));
        assert!(law.sends(durable).is_err());
    }
}

//! An operator who marks an agent gone: by asking the leader, or behind its back. Then the operator asks the registrar of
//! the leader, and ends that leader when the registry has it: the next one learns of it there.

use std::time::Duration;

use meseta_master::operators::MarkAgentGone;
use meseta_master::registrar::{Applied, Apply};
use meseta_master::registry::RegistryOperation;
use meseta_protocol::AgentId;
use meseta_runtime::{Context, Pid, Process, Routes};

/// How long the operator waits for an answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks once, and ends.
pub struct Operator {
    /// Of the leader, when the leader is not to hear of it.
    pub registrar: Option<Pid>,
    /// The leader.
    pub master: Pid,
    /// Who is gone.
    pub agent_id: AgentId,
}

impl Process for Operator {
    fn routes(_: &mut Routes<Self>) {}

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let agent_id = self.agent_id.clone();
        let Some(registrar) = self.registrar.clone() else {
            let master = self.master.clone();
            cx.ask(&master, MarkAgentGone { agent_id }, LIMIT, |_, cx, _| {
                cx.stop();
            });
            return;
        };
        let operation = RegistryOperation::MarkAgentGone {
            agent_id,
            at: u64::try_from(cx.wall().as_nanos()).unwrap_or(u64::MAX),
        };
        cx.ask(&registrar, Apply { operation }, LIMIT, |me, cx, answer| {
            if matches!(answer, Ok(Applied { result: Ok(_) })) {
                cx.terminate(&me.master);
            }
            cx.stop();
        });
    }
}

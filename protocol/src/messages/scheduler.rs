//! Between a framework's scheduler and the master.
//!
//! Pure. Every message of a scheduler names its framework; the master checks that it comes from that framework's
//! PID. What the master says travels inside [`Led`](super::Led).

use serde_bytes::ByteBuf;

use crate::agent::MasterInfo;
use crate::framework::{FrameworkInfo, OfferConstraints};
use crate::ids::{AgentId, ExecutorId, FrameworkId, OfferId, Role, TaskId, UpdateId};
use crate::offer::{Filters, Offer};
use crate::operation::Operation;
use crate::resources::Resources;
use crate::status::StatusUpdate;
use crate::task::KillPolicy;
use crate::wire::record;

record! {
    /// Scheduler → master: here I am, or here I am again when the framework has an id. Repeated until
    /// [`FrameworkSubscribed`] or [`FrameworkError`] answers.
    pub struct SubscribeFramework {
        /// The framework; its id is set when it subscribed before.
        pub framework: FrameworkInfo,
        /// Roles that want no offers for now.
        pub suppressed_roles: Vec<Role>,
        /// Whether to take over from another scheduler of the same framework.
        pub force: bool,
        /// Which agents are wanted.
        pub offer_constraints: Option<OfferConstraints>,
    }
}

record! {
    /// Scheduler → master: end the framework with all its tasks and executors.
    pub struct TeardownFramework {
        /// The framework.
        pub framework_id: FrameworkId,
    }
}

record! {
    /// Scheduler → master: send no more offers, but keep everything running.
    pub struct DeactivateFramework {
        /// The framework.
        pub framework_id: FrameworkId,
    }
}

record! {
    /// Scheduler → master: do this with these offers, all of one agent and one role. What is left is declined.
    pub struct AcceptOffers {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The offers; gone afterwards.
        pub offer_ids: Vec<OfferId>,
        /// What to do, in order.
        pub operations: Vec<Operation>,
        /// For what is left.
        pub filters: Filters,
    }
}

record! {
    /// Scheduler → master: these offers are not needed.
    pub struct DeclineOffers {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The offers; gone afterwards.
        pub offer_ids: Vec<OfferId>,
        /// How long not to offer the same again.
        pub filters: Filters,
    }
}

record! {
    /// Scheduler → master: forget filters and suppression; offers are wanted.
    pub struct ReviveOffers {
        /// The framework.
        pub framework_id: FrameworkId,
        /// For these roles; for all when empty.
        pub roles: Vec<Role>,
    }
}

record! {
    /// Scheduler → master: no offers are wanted until revived.
    pub struct SuppressOffers {
        /// The framework.
        pub framework_id: FrameworkId,
        /// For these roles; for all when empty.
        pub roles: Vec<Role>,
    }
}

record! {
    /// Scheduler → master: stop a task. Repeat it until the task has ended.
    pub struct KillTask {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The task.
        pub task_id: TaskId,
        /// Its agent, when known.
        pub agent_id: Option<AgentId>,
        /// How; as the task says when missing.
        pub kill_policy: Option<KillPolicy>,
    }
}

record! {
    /// Scheduler → master: end an executor with its tasks.
    pub struct ShutdownExecutor {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// Its agent.
        pub agent_id: AgentId,
    }
}

record! {
    /// Scheduler → master: an update with a uuid has been dealt with.
    pub struct AcknowledgeStatus {
        /// The framework.
        pub framework_id: FrameworkId,
        /// Agent the update came from.
        pub agent_id: AgentId,
        /// The task.
        pub task_id: TaskId,
        /// The update.
        pub uuid: UpdateId,
    }
}

record! {
    /// A task asked about.
    #[derive(Eq)]
    pub struct TaskQuestion {
        /// The task.
        pub task_id: TaskId,
        /// Its agent, when known.
        pub agent_id: Option<AgentId>,
    }
}

record! {
    /// Scheduler → master: say how these tasks are, or all when none is named.
    pub struct ReconcileTasks {
        /// The framework.
        pub framework_id: FrameworkId,
        /// The tasks.
        pub tasks: Vec<TaskQuestion>,
    }
}

record! {
    /// Scheduler → master, for an executor: anything; may be lost.
    pub struct FrameworkMessage {
        /// The framework.
        pub framework_id: FrameworkId,
        /// Agent of the executor.
        pub agent_id: AgentId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// The content.
        pub data: ByteBuf,
    }
}

record! {
    /// Resources a framework would like, from one agent or any.
    pub struct ResourceRequest {
        /// The agent; any when missing.
        pub agent_id: Option<AgentId>,
        /// What it would like.
        pub resources: Resources,
    }
}

record! {
    /// Scheduler → master: this would be welcome. Counted, otherwise without effect.
    pub struct RequestResources {
        /// The framework.
        pub framework_id: FrameworkId,
        /// What would be welcome.
        pub requests: Vec<ResourceRequest>,
    }
}

record! {
    /// Master → scheduler: the answer to [`SubscribeFramework`].
    pub struct FrameworkSubscribed {
        /// The framework's id, given now or before.
        pub framework_id: FrameworkId,
        /// The master.
        pub master_info: MasterInfo,
        /// Whether the framework had an id when it subscribed: what it believes of its tasks may be old.
        pub resubscribed: bool,
    }
}

record! {
    /// Master → scheduler: resources to use.
    pub struct ResourceOffers {
        /// The offers.
        pub offers: Vec<Offer>,
    }
}

record! {
    /// Master → scheduler: an offer is no longer valid.
    pub struct OfferRescinded {
        /// The offer.
        pub offer_id: OfferId,
    }
}

record! {
    /// Master → scheduler: a task's state. Acknowledge it when it has a uuid.
    pub struct StatusUpdated {
        /// The update.
        pub update: StatusUpdate,
    }
}

record! {
    /// Master → scheduler, from an executor: anything; may be lost.
    pub struct ExecutorMessage {
        /// Agent of the executor.
        pub agent_id: AgentId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// The content.
        pub data: ByteBuf,
    }
}

record! {
    /// Master → scheduler: an agent is gone; updates on its tasks come apart from this.
    pub struct AgentLost {
        /// The agent.
        pub agent_id: AgentId,
    }
}

record! {
    /// Master → scheduler: an executor has ended; updates on its tasks come apart from this.
    pub struct ExecutorLost {
        /// Its agent.
        pub agent_id: AgentId,
        /// The executor.
        pub executor_id: ExecutorId,
        /// How it ended, as the operating system's wait status: exit 3 is 768, killed by signal 9 is 9.
        pub status: i32,
    }
}

record! {
    /// Master → scheduler: the framework cannot go on; its driver ends.
    pub struct FrameworkError {
        /// Why.
        pub message: String,
    }
}

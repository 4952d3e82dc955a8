//! What a driver says to the master, as a value that can be compared, and how it is sent.

use meseta_protocol::FrameworkId;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::messages::scheduler::{
    AcceptOffers, AcknowledgeStatus, DeactivateFramework, DeclineOffers, FrameworkMessage,
    KillTask, ReconcileTasks, RequestResources, ReviveOffers, ShutdownExecutor, SubscribeFramework,
    SuppressOffers, TeardownFramework,
};
use meseta_protocol::operation::{Operation, OperationAction};
use meseta_runtime::{Context, Pid, Process};

use crate::core::Effect;

macro_rules! to_master {
    ($( $message:ident ),* $(,)?) => {
        /// A message for the master.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "each variant holds the message of its name")]
        pub enum ToMaster {
            $( $message(Box<$message>), )*
        }
        $(
            impl From<$message> for Effect {
                fn from(message: $message) -> Self {
                    Self::Send(ToMaster::$message(Box::new(message)))
                }
            }
        )*
        impl ToMaster {
            /// Sends the message it holds to the master.
            pub(crate) fn send<P: Process>(
                self,
                cx: &mut Context<'_, P>,
                master: &Pid,
            ) {
                match self {
                    $( Self::$message(message) => cx.send(master, *message), )*
                }
            }
        }
    };
}

to_master! {
    SubscribeFramework, TeardownFramework, DeactivateFramework, AcceptOffers, DeclineOffers, ReviveOffers,
    SuppressOffers, KillTask, ShutdownExecutor, AcknowledgeStatus, ReconcileTasks, FrameworkMessage,
    RequestResources,
}

/// Executors of groups have to name their framework; masters do it for those of single tasks only.
pub(crate) fn name_framework(operations: &mut [Operation], framework_id: &FrameworkId) {
    for operation in operations {
        if let OperationAction::LaunchGroup(group) = &mut operation.action {
            let name = |executor: &mut ExecutorInfo| {
                (executor.framework_id).get_or_insert_with(|| framework_id.clone());
            };
            name(&mut group.executor);
            let own = group.task_group.tasks.iter_mut();
            own.filter_map(|task| task.executor.as_mut()).for_each(name);
        }
    }
}

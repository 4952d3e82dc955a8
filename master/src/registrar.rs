//! The registrar `registrar(1)`: the only one that changes the registry.
//!
//! It owns the [`Registry`] in memory, takes operations from the master as asks, applies them one after another and
//! answers each when it has been applied. Nothing of an operation is visible to anyone before its answer.

use meseta_protocol::agent::MasterInfo;
use meseta_runtime::{
    Ask, Context, ExitReason, Message, Pid, Process, Receive, Request, Response, Routes,
};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::registry::{Registry, RegistryOperation, RegistryRejection};

/// Master → registrar: apply this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Apply {
    /// The operation.
    pub operation: RegistryOperation,
}

impl Message for Apply {
    const NAME: &'static str = "meseta.registrar.Apply";
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
}

/// Master → registrar: this leadership begins. Read what earlier ones have stored, and note down who leads now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recover {
    /// Number of the leadership.
    pub epoch: u64,
    /// The master that leads.
    pub master: MasterInfo,
}

impl Message for Recover {
    const NAME: &'static str = "meseta.registrar.Recover";
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
}

/// Registrar → master: the registry is complete, and the leadership is stored in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistryRecovered {}

impl Message for RegistryRecovered {
    const NAME: &'static str = "meseta.registrar.RegistryRecovered";
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
}

impl Ask for Recover {
    type Reply = RegistryRecovered;
}

/// Registrar → master: how it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// Why the operation does not apply, if it does not.
    pub rejection: Option<RegistryRejection>,
}

impl Message for Applied {
    const NAME: &'static str = "meseta.registrar.Applied";
    const SENDERS: &'static [&'static str] = crate::OWN_NODE;
}

impl Ask for Apply {
    type Reply = Applied;
}

/// The registrar. It ends with its master.
pub struct Registrar {
    registry: Registry,
    master: Pid,
}

impl Registrar {
    /// A registrar with an empty registry.
    pub fn new(master: Pid) -> Self {
        Self {
            registry: Registry::default(),
            master,
        }
    }
}

impl Process for Registrar {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Recover>()
            .on::<Apply>()
            .get("/registry", Self::show);
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.master);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        cx.stop();
    }
}

impl Receive<Recover> for Registrar {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, recover: Recover) {
        // In memory there is nothing that another leadership could have left.
        debug!(epoch = recover.epoch, master = %recover.master.id, "the registry begins empty");
        cx.reply(RegistryRecovered {});
    }
}

impl Receive<Apply> for Registrar {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _from: &Pid, apply: Apply) {
        let rejection = self.registry.apply(apply.operation).err();
        debug_assert_eq!(self.registry.check(), Ok(()));
        cx.reply(Applied { rejection });
    }
}

impl Registrar {
    fn show(&mut self, _cx: &mut Context<'_, Self>, _request: &Request) -> Response {
        match serde_json::to_value(&self.registry) {
            Ok(json) => Response::json(&json),
            Err(error) => Response::text(500, error.to_string()),
        }
    }
}

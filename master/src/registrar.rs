//! The registrar `registrar(1)`: the only one that changes the registry.
//!
//! It owns the [`Registry`] in memory, takes operations from the master as asks, applies them one after another and
//! answers each when it has been applied. Nothing of an operation is visible to anyone before its answer.

use meseta_runtime::{
    Ask, Context, ExitReason, Message, Pid, Process, Receive, Request, Response, Routes,
};
use serde::{Deserialize, Serialize};

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
        routes.on::<Apply>().get("/registry", Self::show);
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        cx.link(&self.master);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        cx.stop();
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

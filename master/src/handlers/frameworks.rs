//! Subscription, fail-over, disconnection and end of frameworks. Source: master.md §5.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::agent::{ShutdownFramework, UpdateFramework as UpdateOnAgent};
use meseta_protocol::messages::scheduler::{
    DeactivateFramework, FrameworkError, FrameworkSubscribed, RequestResources, ReviveOffers,
    SubscribeFramework, SuppressOffers, TeardownFramework,
};
use meseta_protocol::{FrameworkId, Role};
use meseta_runtime::{Context, Pid};
use tracing::{info, warn};

use crate::allocator::messages as allocator;
use crate::leading::Serve;
use crate::master::Master;
use crate::state::{Framework, Standing};
use crate::validation;

impl Serve<SubscribeFramework> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, subscribe: SubscribeFramework) {
        let has_id = (subscribe.framework.id.as_ref()).is_some_and(|id| !id.is_empty());
        cx.metrics().count(if has_id {
            "master/messages_reregister_framework"
        } else {
            "master/messages_register_framework"
        });
        let suppressed: BTreeSet<Role> = subscribe.suppressed_roles.iter().cloned().collect();
        let mut info = subscribe.framework;
        info.id = info.id.filter(|id| !id.is_empty());
        let refusal = validation::framework::validate(&info, &suppressed, &self.config.frameworks)
            .err()
            .map(|rejection| rejection.to_string())
            .or_else(|| self.forbidden(&info, from, subscribe.force));
        if let Some(message) = refusal {
            warn!(%from, name = info.name, %message, "subscription refused");
            self.lead(cx, from, FrameworkError { message });
            return;
        }
        // A scheduler is one framework at a time.
        if let Some(other) = self.state.framework_at(from).cloned()
            && info.id.as_ref().is_some_and(|id| *id != other)
        {
            self.framework_disconnected(cx, &other);
        }
        match self.subscriber(from, &info) {
            Some(id) => self.subscribe_again(cx, from, &id, info, suppressed),
            None => self.subscribe_new(cx, from, info, suppressed),
        }
    }
}

impl Serve<TeardownFramework> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, teardown: TeardownFramework) {
        cx.metrics().count("master/messages_unregister_framework");
        if self.speaks_for(cx, from, &teardown.framework_id) {
            info!(framework = %teardown.framework_id, "framework ends");
            self.remove_framework(cx, &teardown.framework_id);
        }
    }
}

impl Serve<DeactivateFramework> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: DeactivateFramework) {
        cx.metrics().count("master/messages_deactivate_framework");
        if self.speaks_for(cx, from, &message.framework_id) {
            self.deactivate(cx, &message.framework_id, Standing::Inactive);
        }
    }
}

impl Serve<ReviveOffers> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, revive: ReviveOffers) {
        cx.metrics().count("master/messages_revive_offers");
        if let Some(roles) = self.own_roles(cx, from, &revive.framework_id, &revive.roles) {
            self.state.suppress(&revive.framework_id, |suppressed| {
                suppressed.retain(|role| !roles.is_empty() && !roles.contains(role));
            });
            let framework_id = revive.framework_id;
            self.tell_allocator(
                cx,
                allocator::ReviveOffers {
                    framework_id,
                    roles,
                },
            );
        }
    }
}

impl Serve<SuppressOffers> for Master {
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, suppress: SuppressOffers) {
        cx.metrics().count("master/messages_suppress_offers");
        if let Some(roles) = self.own_roles(cx, from, &suppress.framework_id, &suppress.roles) {
            let all = self
                .state
                .framework(&suppress.framework_id)
                .map(|f| f.info.effective_roles())
                .unwrap_or_default();
            let named = if roles.is_empty() { &all } else { &roles };
            self.state.suppress(&suppress.framework_id, |suppressed| {
                suppressed.extend(named.iter().cloned());
            });
            let framework_id = suppress.framework_id;
            self.tell_allocator(
                cx,
                allocator::SuppressOffers {
                    framework_id,
                    roles,
                },
            );
        }
    }
}

impl Serve<RequestResources> for Master {
    /// Counted and otherwise ignored, as allocators do.
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, request: RequestResources) {
        cx.metrics().count("master/messages_resource_request");
        self.speaks_for(cx, from, &request.framework_id);
    }
}

impl Master {
    /// Rules that need more than the framework's own words; the text for the scheduler when one is broken.
    fn forbidden(&self, info: &FrameworkInfo, from: &Pid, force: bool) -> Option<String> {
        let id = info.id.as_ref()?;
        if self.state.is_completed(id) {
            return Some("Framework has been removed".to_owned());
        }
        let known = self.state.framework(id)?;
        if known.info.principal != info.principal {
            return Some("Changing framework's principal is not allowed.".to_owned());
        }
        let elsewhere = known.pid.as_ref().is_some_and(|pid| pid != from);
        if elsewhere && !force {
            return Some("Framework failed over".to_owned());
        }
        None
    }

    /// Id of the framework that subscribes, if it has one already.
    fn subscriber(&self, from: &Pid, info: &FrameworkInfo) -> Option<FrameworkId> {
        info.id
            .clone()
            .or_else(|| self.state.framework_at(from).cloned())
    }

    fn subscribe_new(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        mut info: FrameworkInfo,
        suppressed_roles: BTreeSet<Role>,
    ) {
        let id = self.new_framework_id();
        info!(framework = %id, name = info.name, %from, "framework subscribed");
        info.id = Some(id.clone());
        self.admit_framework(cx, Some(from), info, suppressed_roles);
        self.welcome(cx, from, &id, false);
    }

    /// Adds a framework to the tables and the allocator.
    pub(crate) fn admit_framework(
        &mut self,
        cx: &mut Context<'_, Self>,
        pid: Option<&Pid>,
        info: FrameworkInfo,
        suppressed_roles: BTreeSet<Role>,
    ) {
        let Some(framework_id) = info.id.clone() else {
            return;
        };
        let mut framework = Framework::new(info.clone(), pid.cloned(), cx.wall());
        framework.suppressed_roles = suppressed_roles.clone();
        self.state.add_framework(framework);
        if let Some(pid) = pid {
            cx.link(pid);
        }
        let add = allocator::AddFramework {
            framework_id,
            info,
            used: BTreeMap::new(),
            active: pid.is_some(),
            suppressed_roles,
        };
        self.tell_allocator(cx, add);
    }

    /// A framework with an id: back after a break, taken over by another scheduler, or known to an earlier master.
    fn subscribe_again(
        &mut self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: &FrameworkId,
        mut info: FrameworkInfo,
        suppressed_roles: BTreeSet<Role>,
    ) {
        info.id = Some(id.clone());
        let Some(known) = self.state.framework(id) else {
            info!(framework = %id, %from, "framework of an earlier master subscribed");
            self.admit_framework(cx, Some(from), info, suppressed_roles);
            self.welcome(cx, from, id, true);
            return;
        };
        info.user.clone_from(&known.info.user);
        info.checkpoint = known.info.checkpoint;
        let same_scheduler = known.pid.as_ref() == Some(from);
        info!(framework = %id, %from, "framework subscribed again");
        self.take_back_offers(cx, id, same_scheduler);
        self.state.update_framework(id, info.clone());
        self.state
            .suppress(id, |roles| roles.clone_from(&suppressed_roles));
        let old = self.state.connect_framework(id, from, cx.wall());
        if let Some(old) = old.filter(|old| old != from) {
            let message = "Framework failed over".to_owned();
            self.lead(cx, &old, FrameworkError { message });
            cx.unlink(&old);
        }
        cx.link(from);
        let framework_id = id.clone();
        let update = allocator::UpdateFramework {
            framework_id: framework_id.clone(),
            info: info.clone(),
            suppressed_roles,
        };
        self.tell_allocator(cx, update);
        self.tell_allocator(cx, allocator::ActivateFramework { framework_id });
        self.welcome(cx, from, id, true);
        self.tell_agents_of(cx, id, &info);
    }

    fn welcome(&self, cx: &mut Context<'_, Self>, to: &Pid, id: &FrameworkId, resubscribed: bool) {
        let subscribed = FrameworkSubscribed {
            framework_id: id.clone(),
            master_info: self.info.clone(),
            resubscribed,
        };
        self.lead(cx, to, subscribed);
    }

    /// Tells every agent of a framework's new scheduler, upon which they send their unacknowledged updates again.
    pub(crate) fn tell_agents_of(
        &self,
        cx: &mut Context<'_, Self>,
        id: &FrameworkId,
        info: &FrameworkInfo,
    ) {
        let connected = self.state.agents().filter(|(_, agent)| agent.connected);
        for (_, agent) in connected {
            let update = UpdateOnAgent {
                framework_id: id.clone(),
                framework_info: info.clone(),
            };
            self.lead(cx, &agent.pid, update);
        }
    }

    /// The roles named by a framework's call, if all of them are its own; none are named to mean all.
    fn own_roles(
        &self,
        cx: &mut Context<'_, Self>,
        from: &Pid,
        id: &FrameworkId,
        named: &[Role],
    ) -> Option<BTreeSet<Role>> {
        if !self.speaks_for(cx, from, id) {
            return None;
        }
        let own = self.state.framework(id)?.info.effective_roles();
        let named: BTreeSet<Role> = named.iter().cloned().collect();
        match named.iter().find(|role| !own.contains(*role)) {
            Some(foreign) => {
                warn!(framework = %id, role = %foreign, "call dropped: the framework is not in this role");
                cx.metrics().count("master/dropped_messages");
                None
            }
            None => Some(named),
        }
    }

    pub(crate) fn framework_disconnected(&mut self, cx: &mut Context<'_, Self>, id: &FrameworkId) {
        let Some(framework) = self.state.framework(id) else {
            return;
        };
        if !framework.is_connected() {
            return;
        }
        let (timeout, subscription) = (framework.info.failover_timeout, framework.subscription);
        self.deactivate(cx, id, Standing::Disconnected);
        // Validation has refused what is no duration; a negative one never expires.
        let Ok(timeout) = Duration::try_from_secs_f64(timeout) else {
            return;
        };
        let id = id.clone();
        cx.after(timeout, move |master, cx| {
            let framework = master.state.framework(&id);
            let still_away = framework.is_some_and(|f| {
                f.standing == Standing::Disconnected && f.subscription == subscription
            });
            if still_away {
                info!(framework = %id, ?timeout, "framework did not come back in time");
                master.remove_framework(cx, &id);
            }
        });
    }

    fn deactivate(&mut self, cx: &mut Context<'_, Self>, id: &FrameworkId, standing: Standing) {
        self.take_back_offers(cx, id, standing == Standing::Inactive);
        self.state.set_standing(id, standing);
        let framework_id = id.clone();
        self.tell_allocator(cx, allocator::DeactivateFramework { framework_id });
    }

    /// Takes all offers of a framework back.
    fn take_back_offers(&mut self, cx: &mut Context<'_, Self>, id: &FrameworkId, rescind: bool) {
        let offers = self.state.framework(id).map(|f| f.offers.clone());
        for offer in offers.into_iter().flatten() {
            self.take_back_offer(cx, &offer, rescind);
        }
    }

    pub(crate) fn remove_framework(&mut self, cx: &mut Context<'_, Self>, id: &FrameworkId) {
        self.take_back_offers(cx, id, false);
        for (_, agent) in self.state.agents().filter(|(_, agent)| agent.connected) {
            let framework_id = id.clone();
            self.lead(cx, &agent.pid, ShutdownFramework { framework_id });
        }
        if let Some(ended) = self.state.remove_framework(id, cx.wall()) {
            let scheduler = ended.scheduler;
            if let Some(pid) = scheduler.filter(|pid| self.state.framework_at(pid).is_none()) {
                cx.unlink(&pid);
                Self::close_stream(cx, &pid);
            }
            for (agent_id, resources) in ended.freed {
                self.recover(cx, id, &agent_id, resources, None);
            }
        }
        let framework_id = id.clone();
        self.tell_allocator(cx, allocator::RemoveFramework { framework_id });
    }
}

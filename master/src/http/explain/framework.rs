//! Why a framework is offered what it is offered, and no more. Pure.

use std::collections::BTreeMap;

use meseta_protocol::{AgentId, FrameworkId, OfferId, Role};
use serde::Serialize;

use super::{AgentStands, Records, date, since, standing};
use crate::allocator::explain::{AgentExplained, Before, FrameworkExplained, Reason};
use crate::state::Framework;

/// Most outstanding offers that are shown.
const MOST_OFFERS: usize = 100;

/// All that is told of a framework.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    framework_id: FrameworkId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    standing: &'static str,
    what: String,
    /// The answer in short.
    summary: Vec<String>,
    /// Offers that it has not answered.
    offers_in_all: usize,
    offers: Vec<OfferTold>,
    /// Seconds between two runs of the allocator over all agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation_interval_seconds: Option<f64>,
    roles: Vec<RoleTold>,
    filters_in_all: usize,
    filters: Vec<FilterTold>,
    /// How often each reason stands below.
    reasons: BTreeMap<String, usize>,
    agents_in_all: usize,
    offset: usize,
    limit: usize,
    agents: Vec<AgentTold>,
}

#[derive(Debug, Serialize)]
struct OfferTold {
    id: OfferId,
    agent_id: AgentId,
    role: Role,
    resources: String,
}

#[derive(Debug, Serialize)]
struct RoleTold {
    role: Role,
    subscribed: bool,
    suppressed: bool,
    weight: f64,
    dominant_share: f64,
    framework_share: f64,
    smallest_offer: String,
    smallest_offer_of: &'static str,
    roles_before: BeforeTold,
    frameworks_before: BeforeTold,
}

#[derive(Debug, Serialize)]
struct BeforeTold {
    count: usize,
    first: Vec<NamedShare>,
}

#[derive(Debug, Serialize)]
struct NamedShare {
    id: String,
    dominant_share: f64,
}

#[derive(Debug, Serialize)]
struct FilterTold {
    role: Role,
    agent_id: AgentId,
    resources: String,
    /// Seconds since the Unix epoch.
    until: f64,
    seconds_left: f64,
}

#[derive(Debug, Serialize)]
struct AgentTold {
    #[serde(flatten)]
    stands: AgentStands,
    #[serde(skip_serializing_if = "Option::is_none")]
    free: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// Outstanding offers of it to this framework, and how many to others.
    offers: Vec<OfferId>,
    offers_to_others: usize,
    roles: Vec<WhyTold>,
}

#[derive(Debug, Serialize)]
struct WhyTold {
    role: Role,
    #[serde(flatten)]
    reason: ReasonTold,
    text: String,
}

#[derive(Debug, Serialize)]
struct ReasonTold {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_framework: Option<FrameworkId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_role: Option<Role>,
}

/// All that is known of a framework.
pub(super) fn explain(
    records: &Records<'_>,
    id: &FrameworkId,
    allocator: Option<&FrameworkExplained>,
    agent: Option<&AgentId>,
    (offset, limit): (usize, usize),
) -> Told {
    let state = &records.view.state;
    let living = state.framework(id);
    let mut over = state.completed_frameworks();
    let known = living.or_else(|| over.find(|one| one.info.id.as_ref() == Some(id)));
    let (standing, what) = known.map_or_else(
        || {
            (
                "unknown",
                "this master does not know it: it never was here, or is over and forgotten"
                    .to_owned(),
            )
        },
        standing,
    );
    let now = records.ledger.now.as_secs_f64();
    let mut told = Told {
        framework_id: id.clone(),
        name: known.map(|one| one.info.name.clone()),
        standing,
        what,
        summary: Vec::new(),
        offers_in_all: living.map_or(0, |one| one.offers.len()),
        offers: living.map(|one| offers(records, one)).unwrap_or_default(),
        allocation_interval_seconds: allocator.map(|one| one.interval_seconds),
        roles: allocator.map(roles).unwrap_or_default(),
        filters_in_all: allocator.map_or(0, |one| one.refusals_in_all),
        filters: allocator.map(|one| filters(one, now)).unwrap_or_default(),
        reasons: allocator.map(|one| one.reasons.clone()).unwrap_or_default(),
        agents_in_all: allocator.map_or(0, |one| one.agents_in_all),
        offset,
        limit,
        agents: Vec::new(),
    };
    for one in allocator.into_iter().flat_map(|one| &one.agents) {
        told.agents.push(agent_told(records, id, one, now));
    }
    if let Some(agent) = agent
        && told.agents.is_empty()
    {
        // Not in the allocator's books: the master may know more.
        told.agents.push(AgentTold {
            stands: records.agent(agent),
            free: None,
            held: None,
            offers: Vec::new(),
            offers_to_others: 0,
            roles: Vec::new(),
        });
    }
    told.summary = summary(&told, living.is_some(), allocator.is_some(), agent);
    told
}

fn offers(records: &Records<'_>, framework: &Framework) -> Vec<OfferTold> {
    let all = framework.offers.iter().take(MOST_OFFERS);
    all.filter_map(|id| {
        let known = records.view.state.offer(id)?;
        Some(OfferTold {
            id: id.clone(),
            agent_id: known.offer.agent_id.clone(),
            role: known.role.clone(),
            resources: known.offer.resources.unallocated().to_string(),
        })
    })
    .collect()
}

fn before<T: ToString>(all: &Before<T>) -> BeforeTold {
    let first = all.first.iter().map(|(id, share)| NamedShare {
        id: id.to_string(),
        dominant_share: *share,
    });
    BeforeTold {
        count: all.count,
        first: first.collect(),
    }
}

fn roles(told: &FrameworkExplained) -> Vec<RoleTold> {
    let all = told.roles.iter().map(|one| RoleTold {
        role: one.role.clone(),
        subscribed: one.subscribed,
        suppressed: one.suppressed,
        weight: one.weight,
        dominant_share: one.dominant_share,
        framework_share: one.framework_share,
        smallest_offer: one.smallest_offer.clone(),
        smallest_offer_of: if one.smallest_is_its_own {
            "framework"
        } else {
            "master"
        },
        roles_before: before(&one.roles_before),
        frameworks_before: before(&one.frameworks_before),
    });
    all.collect()
}

fn filters(told: &FrameworkExplained, now: f64) -> Vec<FilterTold> {
    let all = told.refusals.iter().map(|one| FilterTold {
        role: one.role.clone(),
        agent_id: one.agent_id.clone(),
        resources: one.resources.clone(),
        until: now + one.left.as_secs_f64(),
        seconds_left: one.left.as_secs_f64(),
    });
    all.collect()
}

fn agent_told(
    records: &Records<'_>,
    id: &FrameworkId,
    one: &AgentExplained,
    now: f64,
) -> AgentTold {
    let state = &records.view.state;
    let (mut own, mut others) = (Vec::new(), 0);
    for offer in state
        .agent(&one.agent_id)
        .into_iter()
        .flat_map(|agent| &agent.offers)
    {
        let is_own = (state.offer(offer)).is_some_and(|known| known.offer.framework_id == *id);
        if is_own && own.len() < MOST_OFFERS {
            own.push(offer.clone());
        } else if !is_own {
            others += 1;
        }
    }
    let why = one.roles.iter().map(|(role, reason)| WhyTold {
        role: role.clone(),
        text: in_words(reason, own.len(), others, now),
        reason: ReasonTold::of(reason, now),
    });
    AgentTold {
        roles: why.collect(),
        stands: records.agent(&one.agent_id),
        free: Some(one.free.clone()),
        held: Some(one.held.clone()),
        offers: own,
        offers_to_others: others,
    }
}

impl ReasonTold {
    fn of(reason: &Reason, now: f64) -> Self {
        let mut told = Self {
            reason: reason.name(),
            until: None,
            after_framework: None,
            after_role: None,
        };
        if let Reason::Refused { left, .. } = reason {
            told.until = Some(now + left.as_secs_f64());
        }
        if let Reason::After { role, framework_id } = reason {
            told.after_role = Some(role.clone());
            told.after_framework = Some(framework_id.clone());
        }
        told
    }
}

/// A reason in words.
fn in_words(reason: &Reason, own: usize, others: usize, now: f64) -> String {
    match reason {
        Reason::FrameworkInactive => "the framework is disconnected, or has asked for no more offers".to_owned(),
        Reason::NotSubscribed => "the framework has left the role, and holds something of it still".to_owned(),
        Reason::Suppressed => "the framework has suppressed offers for the role: REVIVE ends that".to_owned(),
        Reason::AgentDisconnected => "the agent is not connected".to_owned(),
        Reason::NothingFree => {
            let mut by = Vec::new();
            if own > 0 {
                by.push(format!("{own} offers that the framework has not answered"));
            }
            if others > 0 {
                by.push(format!("{others} offers to others"));
            }
            if by.is_empty() {
                "nothing is free: tasks and executors hold all there is".to_owned()
            } else {
                format!("nothing is free: held by {}, and by what runs there", by.join(" and "))
            }
        }
        Reason::AgentLacksHierarchicalRole => "the agent does not know roles below others (HIERARCHICAL_ROLE)".to_owned(),
        Reason::FrameworkLacksGpuResources => {
            "the agent has gpus, kept for frameworks with GPU_RESOURCES (--filter_gpu_resources)".to_owned()
        }
        Reason::OtherRegion => "the agent is in another region than the master; the framework is not REGION_AWARE".to_owned(),
        Reason::AgentLacksMultiRole => "the agent does not know frameworks of several roles (MULTI_ROLE)".to_owned(),
        Reason::NothingForTheRole => {
            "what is free is reserved for other roles, or is revocable, shared or in a refined reservation".to_owned()
        }
        Reason::TooLittle { offer } => format!("{offer} is less than the smallest offer"),
        Reason::Refused { offer, left } => {
            let until = date(now + left.as_secs_f64());
            format!("the framework has declined {offer}: not offered again until {until} (refuse_seconds)")
        }
        Reason::After { role, framework_id } => {
            format!("framework {framework_id} is served before, under role {role}, and takes it")
        }
        Reason::Waiting => "the next run offers it to the framework, or to one that is served before it".to_owned(),
        Reason::NextRun => "the next run of the allocator offers it to the framework".to_owned(),
    }
}

fn summary(
    told: &Told,
    is_living: bool,
    is_in_books: bool,
    agent: Option<&AgentId>,
) -> Vec<String> {
    let mut all = Vec::new();
    if told.offers_in_all > 0 {
        all.push(format!("{} offers wait for its answer", told.offers_in_all));
    }
    if is_living && !is_in_books {
        all.push("the allocator has not said anything of it: it is busy, or has just heard of it. Ask again".to_owned());
        return all;
    }
    if is_in_books && told.agents_in_all == 0 {
        all.push(match agent {
            Some(id) => {
                format!("the allocator has nothing of agent {id} to offer: it does not know it")
            }
            None => "no agent is registered: there is nothing to offer".to_owned(),
        });
    }
    for (reason, count) in &told.reasons {
        all.push(format!("{reason}: {count}"));
    }
    let shown = told.agents.len();
    if shown < told.agents_in_all {
        let all_agents = told.agents_in_all;
        all.push(format!(
            "of {all_agents} agents {shown} were looked at: see ?offset= and ?limit="
        ));
    }
    all
}

impl Told {
    pub(super) fn is_known(&self) -> bool {
        self.standing != "unknown"
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let name = self
            .name
            .as_deref()
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        let mut all = vec![format!(
            "Framework {}{name}: {}, {}.",
            self.framework_id, self.standing, self.what
        )];
        all.extend(self.summary.iter().map(|line| format!("  {line}")));
        for one in &self.roles {
            let mut line = format!(
                "  role {}: share {:.3}, weight {}, the framework's part {:.3}",
                one.role, one.dominant_share, one.weight, one.framework_share
            );
            if one.suppressed {
                line.push_str("; SUPPRESSED");
            }
            if !one.subscribed {
                line.push_str("; left");
            }
            let least = if one.smallest_offer.is_empty() {
                "anything"
            } else {
                &one.smallest_offer
            };
            line.push_str(&format!(
                "; smallest offer {least} (the {}'s)",
                one.smallest_offer_of
            ));
            all.push(line);
            for (what, before) in [
                ("roles", &one.roles_before),
                ("frameworks", &one.frameworks_before),
            ] {
                if before.count > 0 {
                    let first = before
                        .first
                        .iter()
                        .map(|one| format!("{} ({:.3})", one.id, one.dominant_share));
                    let first = first.collect::<Vec<_>>().join(", ");
                    let more = if before.count > before.first.len() {
                        " …"
                    } else {
                        ""
                    };
                    all.push(format!(
                        "    served before: {} {what}: {first}{more}",
                        before.count
                    ));
                }
            }
        }
        for one in &self.offers {
            all.push(format!(
                "  offer {} of agent {} for role {}: {}",
                one.id, one.agent_id, one.role, one.resources
            ));
        }
        for one in &self.filters {
            let until = date(one.until);
            all.push(format!(
                "  filter for role {} on agent {} until {until}: {}",
                one.role, one.agent_id, one.resources
            ));
        }
        for one in &self.agents {
            let hostname = one.stands.hostname.as_deref().unwrap_or("host not known");
            all.push(format!(
                "  agent {} ({hostname}): {}{}",
                one.stands.id,
                one.stands.what,
                since(one.stands.since)
            ));
            if let (Some(free), Some(held)) = (&one.free, &one.held) {
                let held = if held.is_empty() { "nothing" } else { held };
                all.push(format!("    free: {free}; held by the framework: {held}"));
            }
            all.extend(
                one.roles
                    .iter()
                    .map(|why| format!("    role {}: {}", why.role, why.text)),
            );
        }
        all
    }
}

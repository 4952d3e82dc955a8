//! The registry as `/registrar(1)/registry` shows it: JSON with the names that tools for Mesos know.
//!
//! Pure. Parts that are empty are left out. `cluster_id` is ours. Source: log.md §8.

use meseta_protocol::agent::MasterInfo;
use meseta_protocol::agent::{AgentInfo, DrainInfo};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Registry;

impl Registry {
    /// The JSON form.
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        if let Some(master) = &self.master {
            all.insert("master".to_owned(), json!({ "info": master_info(master) }));
        }
        if let Some(id) = &self.cluster_id {
            all.insert("cluster_id".to_owned(), json!(id));
        }
        let slaves = self.admitted.values().map(|agent| {
            let shown =
                json!({ "info": agent_info(&agent.info), "deactivated": agent.deactivated });
            drained(shown, agent.drain_info)
        });
        wrapped(&mut all, "slaves", "slaves", slaves);
        let slaves = self.unreachable.iter().map(|(id, agent)| {
            let shown = json!({
                "id": { "value": id },
                "timestamp": { "nanoseconds": agent.at },
                "deactivated": agent.deactivated,
            });
            drained(shown, agent.drain_info)
        });
        wrapped(&mut all, "unreachable", "slaves", slaves);
        let slaves = self
            .gone
            .iter()
            .map(|(id, at)| json!({ "id": { "value": id }, "timestamp": { "nanoseconds": at } }));
        wrapped(&mut all, "gone", "slaves", slaves);
        let machines = self.machines.values().map(|machine| {
            json!({ "info": {
                "id": machine.id,
                "mode": machine.mode,
                "unavailability": machine.unavailability,
            } })
        });
        wrapped(&mut all, "machines", "machines", machines);
        list(&mut all, "schedules", self.schedule.iter().map(plain));
        let quotas = self.quotas.values().map(|info| json!({ "info": info }));
        list(&mut all, "quotas", quotas);
        list(
            &mut all,
            "quota_configs",
            self.quota_configs.values().map(plain),
        );
        let weights = self
            .weights
            .iter()
            .map(|(role, weight)| json!({ "info": { "role": role, "weight": weight } }));
        list(&mut all, "weights", weights);
        let mut providers = Map::new();
        for (name, ids) in [
            ("resource_providers", &self.resource_providers),
            (
                "removed_resource_providers",
                &self.removed_resource_providers,
            ),
        ] {
            let ids = ids.iter().map(|id| json!({ "id": { "value": id } }));
            list(&mut providers, name, ids);
        }
        if !providers.is_empty() {
            let name = "resource_provider_registry".to_owned();
            all.insert(name, Value::Object(providers));
        }
        let capabilities = self
            .minimum_capabilities
            .iter()
            .map(|name| json!({ "capability": name }));
        list(&mut all, "minimum_capabilities", capabilities);
        Value::Object(all)
    }
}

/// Whatever these records are, they have a JSON form: their keys are texts.
fn plain<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn list(into: &mut Map<String, Value>, name: &str, items: impl Iterator<Item = Value>) {
    let items: Vec<Value> = items.collect();
    if !items.is_empty() {
        into.insert(name.to_owned(), Value::Array(items));
    }
}

fn wrapped(
    into: &mut Map<String, Value>,
    name: &str,
    inner: &str,
    items: impl Iterator<Item = Value>,
) {
    let mut wrapper = Map::new();
    list(&mut wrapper, inner, items);
    if !wrapper.is_empty() {
        into.insert(name.to_owned(), Value::Object(wrapper));
    }
}

fn drained(mut shown: Value, drain_info: Option<DrainInfo>) -> Value {
    if let Some(info) = drain_info {
        shown["drain_info"] = plain(info);
    }
    shown
}

fn agent_info(info: &AgentInfo) -> Value {
    let mut shown = plain(info);
    if let Some(id) = &info.id {
        shown["id"] = json!({ "value": id });
    }
    shown
}

fn master_info(info: &MasterInfo) -> Value {
    let mut shown = plain(info);
    let capabilities = info.capabilities.iter();
    if !info.capabilities.is_empty() {
        let typed: Vec<Value> = capabilities.map(|one| json!({ "type": one })).collect();
        shown["capabilities"] = Value::Array(typed);
    }
    shown
}

//! The older shapes that frameworks without some capability are shown.
//! Pure. Source: master.md §7.1.

use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo};
use meseta_protocol::resources::Resources;

use crate::schema::{Field, Kind, MessageType, message};
use crate::tree::Tree;

/// What a framework understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Resources with a stack of reservations; else with `role` and `reservation`.
    pub refined: bool,
    /// The role that resources are allocated to.
    pub multi_role: bool,
}

impl Style {
    /// What this framework understands.
    pub fn of(framework: &FrameworkInfo) -> Self {
        Self {
            refined: framework.has(FrameworkCapability::ReservationRefinement),
            multi_role: framework.has(FrameworkCapability::MultiRole),
        }
    }

    /// Puts a message into the shape.
    pub fn apply(self, node: &mut Tree, of: &'static MessageType) {
        if self.refined && self.multi_role {
            return;
        }
        let Tree::Message(fields) = node else { return };
        if !self.multi_role {
            fields.retain(|(field, _)| field.name != "allocation_info");
        }
        for (field, value) in fields.iter_mut() {
            let Some(inner) = field.kind.message() else {
                continue;
            };
            match value {
                Tree::List(all) => all.iter_mut().for_each(|one| self.apply(one, inner)),
                Tree::Map(all) => all.iter_mut().for_each(|(_, one)| self.apply(one, inner)),
                Tree::Bool(_)
                | Tree::Int(_)
                | Tree::Uint(_)
                | Tree::Double(_)
                | Tree::Text(_)
                | Tree::Bytes(_)
                | Tree::Enum(..)
                | Tree::Message(_) => self.apply(value, inner),
            }
        }
        if !self.refined && of.name == "mesos.v1.Resource" {
            older(fields, of);
        }
    }
}

/// Puts a message into the shape that operators are shown: each resource says its reservation in the newer fields, and
/// in the older ones as far as these can say it.
pub fn for_operators(node: &mut Tree, of: &'static MessageType) {
    match node {
        Tree::Message(fields) => {
            for (field, value) in fields.iter_mut() {
                if let Some(inner) = field.kind.message() {
                    for_operators(value, inner);
                }
            }
            if of.name == "mesos.v1.Resource" {
                let newer = fields
                    .iter()
                    .find(|(field, _)| field.name == "reservations")
                    .cloned();
                older(fields, of);
                let gone = |newer: &(&Field, Tree)| {
                    fields
                        .iter()
                        .all(|(field, _)| field.number != newer.0.number)
                };
                if let Some(newer) = newer.filter(gone) {
                    fields.push(newer);
                }
            }
        }
        Tree::List(all) => all.iter_mut().for_each(|one| for_operators(one, of)),
        Tree::Map(all) => all.iter_mut().for_each(|(_, one)| for_operators(one, of)),
        Tree::Bool(_)
        | Tree::Int(_)
        | Tree::Uint(_)
        | Tree::Double(_)
        | Tree::Text(_)
        | Tree::Bytes(_)
        | Tree::Enum(..) => {}
    }
}

/// Every single resource as JSON, in the shape that operators are shown.
pub fn in_full(resources: &Resources) -> Vec<serde_json::Value> {
    let of = message("mesos.v1.Resource");
    let one = |resource| {
        let mut tree = crate::to_tree(resource, of).ok()?;
        for_operators(&mut tree, of);
        serde_json::from_slice(&crate::json::write(&tree, of)).ok()
    };
    resources.iter().filter_map(one).collect()
}

/// Turns a stack of at most one reservation into the older fields.
fn older(fields: &mut Vec<(&'static Field, Tree)>, resource: &'static MessageType) {
    let at = fields
        .iter()
        .position(|(field, _)| field.name == "reservations");
    let mut layers = match at.map(|at| fields.swap_remove(at)) {
        Some((field, Tree::List(layers))) if layers.len() > 1 => {
            fields.push((field, Tree::List(layers)));
            return;
        }
        Some((_, Tree::List(layers))) => layers,
        _ => Vec::new(),
    };
    let layer = layers.pop();
    let of_layer = |name: &str| layer.as_ref().and_then(|layer| layer.get(name)).cloned();
    if let Some(field) = resource.field("role") {
        let role = of_layer("role").unwrap_or_else(|| Tree::Text("*".to_owned()));
        fields.push((field, role));
    }
    let is_dynamic = of_layer("type").is_some_and(|kind| kind.text() == Some("DYNAMIC"));
    if let Some(field) = resource.field("reservation").filter(|_| is_dynamic) {
        let info = message("mesos.v1.Resource.ReservationInfo");
        let kept = ["principal", "labels"];
        let kept = kept
            .into_iter()
            .filter_map(|name| Some((info.field(name)?, of_layer(name)?)));
        fields.push((field, Tree::Message(kept.collect())));
        debug_assert!(matches!(field.kind, Kind::Message(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(style: Style, text: &str) -> String {
        let resources: Resources = text.parse().unwrap();
        let resource = resources.iter().next().unwrap().clone().allocated_to("r");
        let of = message("mesos.v1.Resource");
        let mut node = crate::to_tree(&resource, of).unwrap();
        style.apply(&mut node, of);
        String::from_utf8(crate::json::write(&node, of)).unwrap()
    }

    #[test]
    fn frameworks_see_the_fields_they_know() {
        let old = Style {
            refined: false,
            multi_role: false,
        };
        let shown_old = shown(old, "cpus(r):1.5");
        assert!(shown_old.contains(r#""role":"r""#), "{shown_old}");
        assert!(
            !shown_old.contains("reservations") && !shown_old.contains("allocation_info"),
            "{shown_old}"
        );
        let free = shown(old, "cpus:1");
        assert!(
            free.contains(r#""role":"*""#) && free.contains(r#""scalar":{"value":1.0}"#),
            "{free}"
        );
        let new = Style {
            refined: true,
            multi_role: true,
        };
        let shown_new = shown(new, "cpus(r):1.5");
        assert!(
            shown_new.contains("reservations") && shown_new.contains("allocation_info"),
            "{shown_new}"
        );
        assert!(!shown(new, "cpus:1").contains("\"*\""));
    }

    #[test]
    fn operators_see_reservations_in_both_ways() {
        let shown = |text: &str| {
            let resources: Resources = text.parse().unwrap();
            let of = message("mesos.v1.Resource");
            let mut node = crate::to_tree(resources.iter().next().unwrap(), of).unwrap();
            for_operators(&mut node, of);
            String::from_utf8(crate::json::write(&node, of)).unwrap()
        };
        let reserved = shown("cpus(r):1.5");
        assert!(
            reserved.contains(r#""role":"r""#) && reserved.contains("reservations"),
            "{reserved}"
        );
        let free = shown("cpus:1");
        assert!(
            free.contains(r#""role":"*""#) && !free.contains("reservations"),
            "{free}"
        );
    }
}

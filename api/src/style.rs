//! The older shapes that frameworks without some capability are shown.
//! Pure. Source: master.md §7.1.

use meseta_protocol::framework::{FrameworkCapability, FrameworkInfo};
use meseta_protocol::resources::Resources;
use serde::Serialize;

use crate::schema::{Field, MessageType, message};
use crate::tree::Tree;

/// The message whose shape has changed.
pub(crate) const RESOURCE: &str = "mesos.v1.Resource";

/// What a framework understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Resources with a stack of reservations; else with `role` and `reservation`.
    pub refined: bool,
    /// The role that resources are allocated to.
    pub multi_role: bool,
}

impl Style {
    /// Of who understands everything.
    pub const NEWEST: Self = Self {
        refined: true,
        multi_role: true,
    };

    /// What this framework understands.
    pub fn of(framework: &FrameworkInfo) -> Self {
        Self {
            refined: framework.has(FrameworkCapability::ReservationRefinement),
            multi_role: framework.has(FrameworkCapability::MultiRole),
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
            if of.name == RESOURCE {
                let is_layers = |(field, _): &(&Field, Tree)| field.name == "reservations";
                let newer = fields.iter().position(is_layers);
                let newer = newer.map(|at| fields.swap_remove(at));
                fields.extend(older(newer.as_ref().map(|(_, layers)| layers.clone()), of));
                fields.extend(newer.filter(|_| !fields.iter().any(is_layers)));
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

/// A part in the published form of the message of this name; none when it does not fit that.
pub fn published<T: Serialize>(part: &T, name: &str) -> Option<serde_json::Value> {
    let of = message(name);
    let tree = crate::to_tree(part, of).ok()?;
    serde_json::from_slice(&crate::json::write(&tree, of)).ok()
}

/// Every single resource as JSON, in the shape that operators are shown.
pub fn in_full(resources: &Resources) -> Vec<serde_json::Value> {
    let of = message(RESOURCE);
    let one = |resource| {
        let mut tree = crate::to_tree(resource, of).ok()?;
        for_operators(&mut tree, of);
        serde_json::from_slice(&crate::json::write(&tree, of)).ok()
    };
    resources.iter().filter_map(one).collect()
}

/// What stands for a stack of reservations in the older fields of a resource, as far as these can say it: a higher stack
/// stays as it is.
pub(crate) fn older(
    layers: Option<Tree>,
    resource: &'static MessageType,
) -> Vec<(&'static Field, Tree)> {
    let mut layers = match layers {
        Some(Tree::List(layers)) => layers,
        _ => Vec::new(),
    };
    let named = |name: &str, value: Tree| resource.field(name).map(|field| (field, value));
    if layers.len() > 1 {
        return Vec::from_iter(named("reservations", Tree::List(layers)));
    }
    let layer = layers.pop();
    let of_layer = |name: &str| layer.as_ref().and_then(|layer| layer.get(name)).cloned();
    let role = of_layer("role").unwrap_or_else(|| Tree::Text("*".to_owned()));
    let mut fields = Vec::from_iter(named("role", role));
    if of_layer("type").is_some_and(|kind| kind.text() == Some("DYNAMIC")) {
        let info = message("mesos.v1.Resource.ReservationInfo");
        let kept = ["principal", "labels"]
            .into_iter()
            .filter_map(|name| Some((info.field(name)?, of_layer(name)?)));
        fields.extend(named("reservation", Tree::Message(kept.collect())));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(style: Style, text: &str) -> String {
        let resources: Resources = text.parse().unwrap();
        let resource = resources.iter().next().unwrap().clone().allocated_to("r");
        let of = message(RESOURCE);
        let node = crate::write::to_tree_in(&resource, of, style).unwrap();
        let shown = String::from_utf8(crate::json::write(&node, of)).unwrap();
        let at_once = crate::write::to_json(&resource, of, style).unwrap();
        assert_eq!(String::from_utf8(at_once).unwrap(), shown);
        shown
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
            let of = message(RESOURCE);
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

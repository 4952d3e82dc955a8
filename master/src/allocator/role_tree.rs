//! The tree of roles: who is in a role, what is reserved for it, what it weighs.
//!
//! Pure. A role exists, with all roles above it, while it has a framework, a reservation, a weight other than 1, or a
//! role below it that exists; then it disappears by itself. Reservations count for the role they name and every role
//! above it, whether anybody uses them or not. Source: Mesos `src/master/allocator/mesos/hierarchical.cpp`
//! (`RoleTree`). Quota will be a field of [`Node`] beside the reservations it is charged with.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::Role;
use meseta_protocol::resources::{ResourceQuantities, Resources};

/// Weight of a role that was given none.
pub const DEFAULT_WEIGHT: f64 = 1.0;

/// One role.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its part of the cluster in proportion to its siblings'.
    pub weight: f64,
    /// Numbers of the frameworks in it, or holding resources of it.
    pub frameworks: BTreeSet<usize>,
    /// Amounts reserved for it or a role below it, on all agents.
    pub reserved: ResourceQuantities,
    /// How many roles are directly below it.
    children: usize,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            weight: DEFAULT_WEIGHT,
            frameworks: BTreeSet::new(),
            reserved: ResourceQuantities::new(),
            children: 0,
        }
    }
}

impl Node {
    fn is_unused(&self) -> bool {
        self.children == 0
            && self.frameworks.is_empty()
            && self.reserved.is_empty()
            && self.weight.total_cmp(&DEFAULT_WEIGHT).is_eq()
    }
}

/// All roles that exist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoleTree {
    nodes: BTreeMap<Role, Node>,
}

impl RoleTree {
    /// A role, when it exists.
    pub fn get(&self, role: &Role) -> Option<&Node> {
        self.nodes.get(role)
    }

    /// All roles, a role before those below it.
    pub fn iter(&self) -> impl Iterator<Item = (&Role, &Node)> {
        self.nodes.iter()
    }

    /// What a role weighs.
    pub fn weight(&self, role: &Role) -> f64 {
        self.nodes
            .get(role)
            .map_or(DEFAULT_WEIGHT, |node| node.weight)
    }

    /// Puts a framework into a role.
    pub fn add_framework(&mut self, role: &Role, framework: usize) {
        self.change(role, |node| {
            node.frameworks.insert(framework);
        });
    }

    /// Takes a framework out of a role.
    pub fn remove_framework(&mut self, role: &Role, framework: usize) {
        self.change(role, |node| {
            node.frameworks.remove(&framework);
        });
    }

    /// Sets a role's weight, which is greater than zero.
    pub fn set_weight(&mut self, role: &Role, weight: f64) {
        self.change(role, |node| node.weight = weight);
    }

    /// Counts the reservations in an agent's total.
    pub fn add_reservations(&mut self, total: &Resources) {
        for (role, resources) in total.reservations() {
            let amounts = ResourceQuantities::from_scalars(&resources);
            self.change_up(&role, |node| node.reserved += &amounts);
        }
    }

    /// No longer counts the reservations in an agent's total.
    pub fn remove_reservations(&mut self, total: &Resources) {
        for (role, resources) in total.reservations() {
            let amounts = ResourceQuantities::from_scalars(&resources);
            self.change_up(&role, |node| node.reserved -= &amounts);
        }
    }

    fn change_up(&mut self, role: &Role, change: impl Fn(&mut Node)) {
        self.change(role, &change);
        for above in role.ancestors() {
            self.change(&above, &change);
        }
    }

    /// Changes a node, which appears and disappears as needed.
    fn change(&mut self, role: &Role, change: impl FnOnce(&mut Node)) {
        if !self.nodes.contains_key(role) {
            self.nodes.insert(role.clone(), Node::default());
            for above in role.ancestors() {
                let is_new = !self.nodes.contains_key(&above);
                self.nodes.entry(above).or_default().children += 1;
                if !is_new {
                    break;
                }
            }
        }
        if let Some(node) = self.nodes.get_mut(role) {
            change(node);
        }
        self.forget_unused(role.clone());
    }

    fn forget_unused(&mut self, role: Role) {
        let mut at = Some(role);
        while let Some(role) = at {
            if !self.nodes.get(&role).is_some_and(Node::is_unused) {
                return;
            }
            self.nodes.remove(&role);
            at = role.parent();
            if let Some(parent) = at.as_ref().and_then(|parent| self.nodes.get_mut(parent)) {
                parent.children -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::resources::Scalar;

    fn names(tree: &RoleTree) -> Vec<&str> {
        tree.iter().map(|(role, _)| role.as_str()).collect()
    }

    #[test]
    fn roles_exist_while_they_are_used() {
        let mut tree = RoleTree::default();
        let (a, abc) = (Role::from("a"), Role::from("a/b/c"));
        tree.add_framework(&abc, 1);
        assert_eq!(names(&tree), ["a", "a/b", "a/b/c"]);
        tree.set_weight(&a, 2.0);
        tree.remove_framework(&abc, 1);
        assert_eq!(names(&tree), ["a"]);
        tree.set_weight(&a, 1.0);
        assert_eq!(names(&tree), [""; 0]);
        assert_eq!(tree, RoleTree::default());
    }

    #[test]
    fn reservations_count_for_the_role_and_those_above() {
        let mut tree = RoleTree::default();
        let total: Resources = "cpus(a/b):2;cpus(a):1;ports(x):[1-9];mem:5"
            .parse()
            .unwrap();
        tree.add_reservations(&total);
        let cpus = |role: &str| tree.get(&role.into()).map(|node| node.reserved.get("cpus"));
        assert_eq!(cpus("a"), Some(Scalar::whole(3)));
        assert_eq!(cpus("a/b"), Some(Scalar::whole(2)));
        tree.remove_reservations(&total);
        assert_eq!(tree, RoleTree::default());
    }
}

//! The hierarchical dominant-resource-fairness sorter: in which order roles, or the frameworks of a role, are served.
//!
//! Pure. Clients stand in a tree of paths. A node's share is the largest part that its subtree holds of any one of
//! the cluster's totals, divided by the node's weight. Children of a node are served by share, then by how many
//! allocations were made to them so far, then by name; an inner node contributes all its active clients in a row. A
//! client that is also an ancestor of another stands beside its children as a leaf named `.`.
//!
//! ```text
//!            (root)                 clients a, a/b, c
//!           /      \
//!      a (inner)    c               share(a) = share of what `.` and `b` hold together
//!      /      \
//!     .        b
//! ```
//!
//! Invariant: while `version` is that of the totals, every node's share is current and every list of children is in
//! order, so a change moves one entry of one list on each level. Sources: Ghodsi et al., "Dominant Resource
//! Fairness" (NSDI 2011); Mesos `src/master/allocator/mesos/sorter/drf/sorter.cpp`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::amounts::{Amounts, Totals};
use super::slab::Slab;

/// Name of the leaf that stands for a client which has others below it. No component of a role can be `.`.
const OWN: &str = ".";

/// A client as its owner numbers it.
pub type Client = usize;

#[derive(Debug)]
struct Leaf {
    client: Client,
    active: bool,
}

#[derive(Debug)]
struct Node {
    name: Arc<str>,
    parent: usize,
    /// Set for a leaf, which has no children.
    leaf: Option<Leaf>,
    children: Vec<usize>,
    allocated: Amounts,
    allocations: u64,
    weight: f64,
    share: f64,
}

/// The sorter. Clients are added inactive, which keeps them out of the order but not out of their ancestors' shares.
#[derive(Debug)]
pub struct DrfSorter {
    nodes: Slab<Node>,
    root: usize,
    by_name: BTreeMap<(usize, Arc<str>), usize>,
    leaves: BTreeMap<Client, usize>,
    /// Weights by path; also of paths that are not there yet.
    weights: BTreeMap<String, f64>,
    /// Version of the totals for which shares and order hold; none when everything must be worked out again.
    version: Option<u64>,
    order: Option<Arc<[Client]>>,
}

impl Default for DrfSorter {
    fn default() -> Self {
        let mut nodes = Slab::default();
        let root = nodes.insert(Node::new(Arc::from(""), 0, 1.0));
        Self {
            nodes,
            root,
            by_name: BTreeMap::new(),
            leaves: BTreeMap::new(),
            weights: BTreeMap::new(),
            version: None,
            order: None,
        }
    }
}

impl Node {
    fn new(name: Arc<str>, parent: usize, weight: f64) -> Self {
        Self {
            name,
            parent,
            leaf: None,
            children: Vec::new(),
            allocated: Amounts::default(),
            allocations: 0,
            weight,
            share: 0.0,
        }
    }

    /// Who is served first.
    fn order(&self, other: &Self) -> Ordering {
        self.share
            .total_cmp(&other.share)
            .then_with(|| self.allocations.cmp(&other.allocations))
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl DrfSorter {
    /// Adds a client under a path, inactive and holding nothing. A client that is there already stays as it is.
    pub fn add<'a>(&mut self, client: Client, path: impl IntoIterator<Item = &'a str>) {
        if self.leaves.contains_key(&client) {
            return;
        }
        self.version = None;
        self.order = None;
        let mut at = self.root;
        let mut text = String::new();
        for component in path {
            if at != self.root {
                text.push('/');
            }
            text.push_str(component);
            self.make_inner(at);
            at = self.child_or_new(at, component, &text);
        }
        let is_inner = self.nodes.get(at).is_some_and(|n| !n.children.is_empty());
        if is_inner {
            text.push('/');
            text.push_str(OWN);
            at = self.child_or_new(at, OWN, &text);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.leaf = Some(Leaf {
                client,
                active: false,
            });
            self.leaves.insert(client, at);
        }
    }

    /// Turns a leaf into an inner node with the leaf below it.
    fn make_inner(&mut self, at: usize) {
        let Some(node) = self.nodes.get_mut(at) else {
            return;
        };
        let Some(leaf) = node.leaf.take() else {
            return;
        };
        let client = leaf.client;
        let own = Node {
            leaf: Some(leaf),
            allocated: node.allocated.clone(),
            allocations: node.allocations,
            ..Node::new(Arc::from(OWN), at, 1.0)
        };
        let own = self.attach(own);
        self.leaves.insert(client, own);
    }

    fn child_or_new(&mut self, parent: usize, name: &str, path: &str) -> usize {
        let name: Arc<str> = Arc::from(name);
        if let Some(at) = self.by_name.get(&(parent, Arc::clone(&name))) {
            return *at;
        }
        let weight = self.weights.get(path).copied().unwrap_or(1.0);
        self.attach(Node::new(name, parent, weight))
    }

    fn attach(&mut self, node: Node) -> usize {
        let (parent, name) = (node.parent, Arc::clone(&node.name));
        let at = self.nodes.insert(node);
        self.by_name.insert((parent, name), at);
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.push(at);
        }
        at
    }

    /// Removes a client and what it holds.
    pub fn remove(&mut self, client: Client) {
        let Some(mut at) = self.leaves.remove(&client) else {
            return;
        };
        self.version = None;
        self.order = None;
        let held = self.nodes.get(at).map(|leaf| leaf.allocated.clone());
        let held = held.unwrap_or_default();
        let mut up = at;
        while up != self.root {
            up = self.nodes.get(up).map_or(self.root, |node| node.parent);
            if let Some(node) = self.nodes.get_mut(up) {
                node.allocated.subtract_all(&held);
            }
        }
        // The leaf goes, and with it every inner node that has no children left. One whose last child is its own
        // leaf may stay: it sorts as that leaf does.
        while at != self.root {
            let Some(node) = self.nodes.remove(at) else {
                break;
            };
            self.by_name.remove(&(node.parent, node.name));
            let Some(parent) = self.nodes.get_mut(node.parent) else {
                break;
            };
            parent.children.retain(|child| *child != at);
            if !parent.children.is_empty() {
                break;
            }
            at = node.parent;
        }
    }

    /// Whether the client is known.
    pub fn contains(&self, client: Client) -> bool {
        self.leaves.contains_key(&client)
    }

    /// Lets a client into the order, or keeps it out.
    pub fn set_active(&mut self, client: Client, active: bool) {
        let at = self.leaves.get(&client).copied();
        let leaf = at.and_then(|at| self.nodes.get_mut(at)?.leaf.as_mut());
        if let Some(leaf) = leaf
            && leaf.active != active
        {
            leaf.active = active;
            self.order = None;
        }
    }

    /// Sets the weight of the node at `path`, which need not exist yet. Weights are greater than zero.
    pub fn set_weight(&mut self, path: &str, weight: f64) {
        self.weights.insert(path.to_owned(), weight);
        let mut at = self.root;
        for component in path.split('/') {
            let Some(child) = self.by_name.get(&(at, Arc::from(component))) else {
                return;
            };
            at = *child;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.weight = weight;
            self.version = None;
        }
    }

    /// Charges one allocation to a client.
    pub fn allocated(&mut self, client: Client, amounts: &Amounts, totals: &Totals) {
        self.change_path(client, totals, |node| {
            node.allocated.add_all(amounts);
            node.allocations += 1;
        });
    }

    /// Takes amounts off a client. How often it was served stays.
    pub fn unallocated(&mut self, client: Client, amounts: &Amounts, totals: &Totals) {
        if !amounts.is_empty() {
            self.change_path(client, totals, |node| node.allocated.subtract_all(amounts));
        }
    }

    fn change_path(&mut self, client: Client, totals: &Totals, change: impl Fn(&mut Node)) {
        let Some(mut at) = self.leaves.get(&client).copied() else {
            return;
        };
        let current = self.version == Some(totals.version());
        while at != self.root {
            let Some(parent) = self.nodes.get(at).map(|node| node.parent) else {
                return;
            };
            // The list of siblings is in order under the old share, so a search finds the node's place in it.
            let from = current.then(|| self.place(parent, at));
            if let Some(node) = self.nodes.get_mut(at) {
                change(node);
                node.share = totals.dominant_share(&node.allocated) / node.weight;
            }
            if let Some(from) = from {
                self.move_child(parent, from, at);
            }
            at = parent;
        }
        if let Some(root) = self.nodes.get_mut(self.root) {
            change(root);
        }
    }

    /// How many children of `parent` come before `child`.
    fn place(&self, parent: usize, child: usize) -> usize {
        let Some(parent) = self.nodes.get(parent) else {
            return 0;
        };
        parent
            .children
            .partition_point(|other| self.compare(*other, child) == Ordering::Less)
    }

    fn move_child(&mut self, parent: usize, from: usize, child: usize) {
        if let Some(node) = self.nodes.get_mut(parent) {
            debug_assert_eq!(node.children.get(from), Some(&child), "siblings in order");
            node.children.remove(from);
        }
        let to = self.place(parent, child);
        if let Some(node) = self.nodes.get_mut(parent) {
            node.children.insert(to, child);
        }
        if from != to {
            self.order = None;
        }
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        match (self.nodes.get(a), self.nodes.get(b)) {
            (Some(a), Some(b)) => a.order(b),
            _ => Ordering::Equal,
        }
    }

    /// The active clients in the order in which they are to be served.
    pub fn sort(&mut self, totals: &Totals) -> Arc<[Client]> {
        if self.version != Some(totals.version()) {
            self.recompute(totals);
        }
        if let Some(order) = &self.order {
            return Arc::clone(order);
        }
        let order: Arc<[Client]> = Arc::from(self.walk());
        self.order = Some(Arc::clone(&order));
        order
    }

    fn recompute(&mut self, totals: &Totals) {
        for (_, node) in self.nodes.iter_mut() {
            node.share = totals.dominant_share(&node.allocated) / node.weight;
        }
        let inner: Vec<usize> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.children.len() > 1)
            .map(|(at, _)| at)
            .collect();
        for at in inner {
            let Some(node) = self.nodes.get_mut(at) else {
                continue;
            };
            let mut children = std::mem::take(&mut node.children);
            children.sort_unstable_by(|a, b| self.compare(*a, *b));
            if let Some(node) = self.nodes.get_mut(at) {
                node.children = children;
            }
        }
        self.version = Some(totals.version());
        self.order = None;
    }

    /// Pre-order, with a stack of its own: a role may have any number of components.
    fn walk(&self) -> Vec<Client> {
        let mut order = Vec::with_capacity(self.leaves.len());
        let mut stack = vec![self.root];
        while let Some(node) = stack.pop().and_then(|at| self.nodes.get(at)) {
            match &node.leaf {
                Some(leaf) if leaf.active => order.push(leaf.client),
                Some(_) => {}
                None => stack.extend(node.children.iter().rev()),
            }
        }
        order
    }

    /// What a client holds.
    pub fn held(&self, client: Client) -> Option<&Amounts> {
        let at = self.leaves.get(&client)?;
        Some(&self.nodes.get(*at)?.allocated)
    }

    /// What all clients hold together.
    pub fn held_by_all(&self) -> &Amounts {
        static NOTHING: Amounts = Amounts::new();
        self.nodes
            .get(self.root)
            .map_or(&NOTHING, |root| &root.allocated)
    }

    /// The dominant share of a client, its weight aside; what the metric shows.
    pub fn dominant_share(&self, client: Client, totals: &Totals) -> f64 {
        self.held(client)
            .map_or(0.0, |held| totals.dominant_share(held))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use meseta_protocol::resources::{Scalar, resource_name};
    use proptest::prelude::*;

    use super::super::amounts::Names;
    use super::*;

    fn amounts(names: &mut Names, cpus: i64, mem: i64) -> Amounts {
        let mut out = Amounts::default();
        out.add(names.id(&resource_name("cpus")), Scalar::whole(cpus));
        out.add(names.id(&resource_name("mem")), Scalar::whole(mem));
        out
    }

    /// The example of the DRF paper: 9 cpus and 18 GB; tasks of A take <1, 4>, tasks of B <3, 1>. The paper serves B
    /// first; here the name decides a tie, so A is the first, and the outcome is the same.
    #[test]
    fn shares_the_paper_s_cluster_as_the_paper_does() {
        let mut names = Names::default();
        let mut totals = Totals::default();
        totals.add(&amounts(&mut names, 9, 18));
        let tasks = [amounts(&mut names, 1, 4), amounts(&mut names, 3, 1)];
        let mut sorter = DrfSorter::default();
        for (client, name) in ["A", "B"].into_iter().enumerate() {
            sorter.add(client, [name]);
            sorter.set_active(client, true);
        }
        let mut served = Vec::new();
        for _ in 0..5 {
            let next = sorter.sort(&totals)[0];
            sorter.allocated(next, &tasks[next], &totals);
            served.push(next);
        }
        assert_eq!(served, [0, 1, 0, 1, 0]);
        let share = |client| sorter.dominant_share(client, &totals);
        assert_eq!((share(0), share(1)), (12.0 / 18.0, 6.0 / 9.0));
    }

    #[test]
    fn an_inner_node_contributes_its_clients_in_a_row() {
        let mut names = Names::default();
        let mut totals = Totals::default();
        totals.add(&amounts(&mut names, 100, 100));
        let mut sorter = DrfSorter::default();
        let paths = ["a", "a/b", "a/c", "d"];
        for (client, path) in paths.into_iter().enumerate() {
            sorter.add(client, path.split('/'));
            sorter.set_active(client, true);
        }
        sorter.allocated(1, &amounts(&mut names, 5, 0), &totals);
        sorter.allocated(0, &amounts(&mut names, 10, 0), &totals);
        sorter.allocated(3, &amounts(&mut names, 20, 0), &totals);
        // a holds 15, d 20; below a: c 0, b 5, a itself 10.
        assert_eq!(*sorter.sort(&totals), [2, 1, 0, 3]);
        sorter.set_weight("d", 4.0);
        assert_eq!(*sorter.sort(&totals), [3, 2, 1, 0]);
        sorter.set_active(1, false);
        assert_eq!(*sorter.sort(&totals), [3, 2, 0]);
        sorter.remove(1);
        sorter.remove(2);
        sorter.allocated(3, &amounts(&mut names, 30, 0), &totals);
        // d: 50 / 4 = 12.5 %, a: 10 %.
        assert_eq!(*sorter.sort(&totals), [0, 3]);
    }

    #[test]
    fn a_role_of_very_many_components_is_no_danger() {
        let totals = Totals::default();
        let mut sorter = DrfSorter::default();
        sorter.add(0, std::iter::repeat_n("x", 50_000));
        sorter.set_active(0, true);
        assert_eq!(*sorter.sort(&totals), [0]);
        sorter.remove(0);
        assert!(sorter.sort(&totals).is_empty());
    }

    /// The definition, worked out from nothing each time.
    #[derive(Default)]
    struct Naive {
        clients: BTreeMap<String, (Client, bool, Amounts, u64)>,
        served: BTreeMap<String, u64>,
        weights: BTreeMap<String, f64>,
    }

    impl Naive {
        fn is_under(path: &str, top: &str) -> bool {
            path == top || path.starts_with(&format!("{top}/"))
        }

        fn prefixes(path: &str) -> Vec<String> {
            let ends = path.match_indices('/').map(|(at, _)| at);
            ends.chain([path.len()])
                .map(|at| path[..at].to_owned())
                .collect()
        }

        fn sort(&self, parent: &str, totals: &Totals) -> Vec<Client> {
            let mut children = BTreeSet::new();
            for path in self.clients.keys() {
                let rest = if parent.is_empty() {
                    Some(path.as_str())
                } else if path == parent {
                    Some(OWN)
                } else {
                    path.strip_prefix(&format!("{parent}/"))
                };
                if let Some(rest) = rest {
                    children.insert(rest.split('/').next().unwrap().to_owned());
                }
            }
            let mut entries = Vec::new();
            for name in children {
                let path = if parent.is_empty() {
                    name.clone()
                } else {
                    format!("{parent}/{name}")
                };
                let weight = self.weights.get(&path).copied().unwrap_or(1.0);
                let (held, served) = if name == OWN {
                    let own = &self.clients[parent];
                    (own.2.clone(), own.3)
                } else {
                    let mut held = Amounts::default();
                    for (other, client) in &self.clients {
                        if Self::is_under(other, &path) {
                            held.add_all(&client.2);
                        }
                    }
                    (held, self.served.get(&path).copied().unwrap_or(0))
                };
                entries.push((totals.dominant_share(&held) / weight, served, name, path));
            }
            entries.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
            let mut out = Vec::new();
            for (_, _, name, path) in entries {
                let single = self.clients.get(if name == OWN { parent } else { &path });
                let has_children = self
                    .clients
                    .keys()
                    .any(|p| p.starts_with(&format!("{path}/")));
                match single {
                    Some(client) if name == OWN || !has_children => {
                        if client.1 {
                            out.push(client.0);
                        }
                    }
                    _ => out.extend(self.sort(&path, totals)),
                }
            }
            out
        }
    }

    const PATHS: [&str; 8] = ["a", "a/b", "a/b/c", "a/d", "b", "b/a", "c", "*"];

    #[derive(Debug, Clone)]
    enum Step {
        Add(usize),
        Remove(usize),
        Activate(usize, bool),
        Charge(usize, i64, i64),
        Release(usize),
        Weight(usize, i32),
        Grow(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let path = 0..PATHS.len();
        prop_oneof![
            path.clone().prop_map(Step::Add),
            path.clone().prop_map(Step::Remove),
            (path.clone(), any::<bool>()).prop_map(|(p, a)| Step::Activate(p, a)),
            (path.clone(), 0i64..4, 0i64..4).prop_map(|(p, c, m)| Step::Charge(p, c, m)),
            path.clone().prop_map(Step::Release),
            (path, 1i32..4).prop_map(|(p, w)| Step::Weight(p, w)),
            (1i64..50).prop_map(Step::Grow),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(steps in proptest::collection::vec(step(), 1..60)) {
            let mut names = Names::default();
            let mut totals = Totals::default();
            totals.add(&amounts(&mut names, 40, 30));
            let (mut sorter, mut naive) = (DrfSorter::default(), Naive::default());
            for step in steps {
                match step {
                    Step::Add(p) => {
                        sorter.add(p, PATHS[p].split('/'));
                        sorter.set_active(p, true);
                        let entry = (p, true, Amounts::default(), 0);
                        naive.clients.entry(PATHS[p].to_owned()).or_insert(entry).1 = true;
                    }
                    Step::Remove(p) => {
                        sorter.remove(p);
                        naive.clients.remove(PATHS[p]);
                        let clients = &naive.clients;
                        naive.served.retain(|path, _| {
                            clients.keys().any(|client| Naive::is_under(client, path))
                        });
                    }
                    Step::Activate(p, active) => {
                        sorter.set_active(p, active);
                        if let Some(client) = naive.clients.get_mut(PATHS[p]) {
                            client.1 = active;
                        }
                    }
                    Step::Charge(p, cpus, mem) => {
                        let charge = amounts(&mut names, cpus, mem);
                        sorter.allocated(p, &charge, &totals);
                        if let Some(client) = naive.clients.get_mut(PATHS[p]) {
                            client.2.add_all(&charge);
                            client.3 += 1;
                            for prefix in Naive::prefixes(PATHS[p]) {
                                *naive.served.entry(prefix).or_default() += 1;
                            }
                        }
                    }
                    Step::Release(p) => {
                        let held = sorter.held(p).cloned().unwrap_or_default();
                        sorter.unallocated(p, &held, &totals);
                        if let Some(client) = naive.clients.get_mut(PATHS[p]) {
                            client.2 = Amounts::default();
                        }
                    }
                    Step::Weight(p, weight) => {
                        sorter.set_weight(PATHS[p], f64::from(weight));
                        naive.weights.insert(PATHS[p].to_owned(), f64::from(weight));
                    }
                    Step::Grow(cpus) => totals.add(&amounts(&mut names, cpus, 0)),
                }
                prop_assert_eq!(sorter.sort(&totals).to_vec(), naive.sort("", &totals));
            }
        }
    }
}

//! Which of many key ranges contain a key: an AVL tree ordered by range, in which every node knows how far the ranges
//! below it reach. With `n` ranges of which `k` contain the key, a question costs at most `O((k + 1) log n)`, a change
//! `O(log n)`, and no order of changes makes it slower.

use std::cmp::Ordering;

use bytes::Bytes;

/// Values by key range.
#[derive(Debug)]
pub(super) struct IntervalTree<T> {
    nodes: Vec<Node<T>>,
    /// Nodes that are not in use.
    free: Vec<usize>,
    root: Link,
}

/// A key range: `start..end`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) start: Bytes,
    pub(super) end: End,
}

/// Where a range ends. The order of the variants is that of the keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Open,
}

type Link = Option<usize>;

#[derive(Debug)]
struct Node<T> {
    interval: Interval,
    /// The furthest end of this node and all below it.
    reach: End,
    height: u32,
    left: Link,
    right: Link,
    value: T,
}

// === impl End ===

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Open => true,
        }
    }
}

// === impl IntervalTree ===

impl<T> Default for IntervalTree<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: None }
    }
}

impl<T: Default> IntervalTree<T> {
    /// The value of a range, if it has one.
    pub(super) fn get_mut(&mut self, interval: &Interval) -> Option<&mut T> {
        let mut link = self.root;
        while let Some(at) = link {
            match interval.cmp(&self.nodes[at].interval) {
                Ordering::Less => link = self.nodes[at].left,
                Ordering::Greater => link = self.nodes[at].right,
                Ordering::Equal => return Some(&mut self.nodes[at].value),
            }
        }
        None
    }

    /// The value of a range, a fresh one if it had none.
    pub(super) fn entry(&mut self, interval: Interval) -> &mut T {
        let (root, at) = self.insert_below(self.root, interval);
        self.root = Some(root);
        &mut self.nodes[at].value
    }

    /// Forgets a range.
    pub(super) fn remove(&mut self, interval: &Interval) -> Option<T> {
        let (root, removed) = self.remove_below(self.root, interval);
        self.root = root;
        let at = removed?;
        let node = &mut self.nodes[at];
        node.interval = Interval { start: Bytes::new(), end: End::Open };
        node.reach = End::Open;
        self.free.push(at);
        Some(std::mem::take(&mut self.nodes[at].value))
    }

    /// Visits the values of the ranges that contain the key, in the order of the ranges.
    pub(super) fn stab(&self, key: &[u8], visit: &mut impl FnMut(&T)) {
        self.stab_below(self.root, key, visit);
    }

    fn stab_below(&self, link: Link, key: &[u8], visit: &mut impl FnMut(&T)) {
        let Some(at) = link else { return };
        let node = &self.nodes[at];
        if !node.reach.is_after(key) {
            return;
        }
        self.stab_below(node.left, key, visit);
        if node.interval.start <= key {
            if node.interval.end.is_after(key) {
                visit(&node.value);
            }
            self.stab_below(node.right, key, visit);
        }
    }

    /// The root of what was below `link` with the interval in it, and the interval's node.
    fn insert_below(&mut self, link: Link, interval: Interval) -> (usize, usize) {
        let Some(at) = link else {
            let fresh = self.allocate(interval);
            return (fresh, fresh);
        };
        let found = match interval.cmp(&self.nodes[at].interval) {
            Ordering::Equal => return (at, at),
            Ordering::Less => {
                let (left, found) = self.insert_below(self.nodes[at].left, interval);
                self.nodes[at].left = Some(left);
                found
            }
            Ordering::Greater => {
                let (right, found) = self.insert_below(self.nodes[at].right, interval);
                self.nodes[at].right = Some(right);
                found
            }
        };
        (self.balance(at), found)
    }

    /// The root of what is left below `link` without the interval, and the node that was taken out.
    fn remove_below(&mut self, link: Link, interval: &Interval) -> (Link, Link) {
        let Some(at) = link else { return (None, None) };
        let removed = match interval.cmp(&self.nodes[at].interval) {
            Ordering::Less => {
                let (left, removed) = self.remove_below(self.nodes[at].left, interval);
                self.nodes[at].left = left;
                removed
            }
            Ordering::Greater => {
                let (right, removed) = self.remove_below(self.nodes[at].right, interval);
                self.nodes[at].right = right;
                removed
            }
            Ordering::Equal => {
                let (left, right) = (self.nodes[at].left, self.nodes[at].right);
                let Some(right) = right else { return (left, Some(at)) };
                let (rest, heir) = self.detach_first(right);
                self.nodes[heir].left = left;
                self.nodes[heir].right = rest;
                return (Some(self.balance(heir)), Some(at));
            }
        };
        (Some(self.balance(at)), removed)
    }

    /// Takes the first node out of a subtree: what is left of it, and the node.
    fn detach_first(&mut self, at: usize) -> (Link, usize) {
        match self.nodes[at].left {
            None => (self.nodes[at].right, at),
            Some(left) => {
                let (rest, first) = self.detach_first(left);
                self.nodes[at].left = rest;
                (Some(self.balance(at)), first)
            }
        }
    }

    fn allocate(&mut self, interval: Interval) -> usize {
        let reach = interval.end.clone();
        let node = Node { interval, reach, height: 1, left: None, right: None, value: T::default() };
        if let Some(at) = self.free.pop() {
            self.nodes[at] = node;
            at
        } else {
            self.nodes.push(node);
            self.nodes.len() - 1
        }
    }

    fn height(&self, link: Link) -> u32 {
        link.map_or(0, |at| self.nodes[at].height)
    }

    /// Recomputes what a node knows of its children.
    fn refresh(&mut self, at: usize) {
        let (left, right) = (self.nodes[at].left, self.nodes[at].right);
        let reach = [left, right]
            .into_iter()
            .flatten()
            .map(|child| &self.nodes[child].reach)
            .chain([&self.nodes[at].interval.end])
            .max()
            .cloned();
        let height = 1 + self.height(left).max(self.height(right));
        let node = &mut self.nodes[at];
        node.height = height;
        if let Some(reach) = reach {
            node.reach = reach;
        }
    }

    /// Restores the AVL rule at a node whose subtrees differ in height by at most two; answers the new root.
    fn balance(&mut self, at: usize) -> usize {
        self.refresh(at);
        let (left, right) = (self.nodes[at].left, self.nodes[at].right);
        let (low, high) = (self.height(left), self.height(right));
        match (left, right) {
            (Some(left), _) if low > high + 1 => {
                if self.height(self.nodes[left].right) > self.height(self.nodes[left].left) {
                    let lifted = self.rotate_left(left);
                    self.nodes[at].left = Some(lifted);
                }
                self.rotate_right(at)
            }
            (_, Some(right)) if high > low + 1 => {
                if self.height(self.nodes[right].left) > self.height(self.nodes[right].right) {
                    let lifted = self.rotate_right(right);
                    self.nodes[at].right = Some(lifted);
                }
                self.rotate_left(at)
            }
            _ => at,
        }
    }

    /// Lifts the right child above its parent.
    fn rotate_left(&mut self, at: usize) -> usize {
        let Some(lifted) = self.nodes[at].right else { return at };
        self.nodes[at].right = self.nodes[lifted].left;
        self.nodes[lifted].left = Some(at);
        self.refresh(at);
        self.refresh(lifted);
        lifted
    }

    /// Lifts the left child above its parent.
    fn rotate_right(&mut self, at: usize) -> usize {
        let Some(lifted) = self.nodes[at].left else { return at };
        self.nodes[at].left = self.nodes[lifted].right;
        self.nodes[lifted].right = Some(at);
        self.refresh(at);
        self.refresh(lifted);
        lifted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<T: Default> IntervalTree<T> {
        pub(in super::super) fn is_empty(&self) -> bool {
            self.root.is_none()
        }

        /// Height of a subtree, after checking that heights and reaches in it are right and that it is balanced.
        fn check(&self, link: Link) -> u32 {
            let Some(at) = link else { return 0 };
            let node = &self.nodes[at];
            let (left, right) = (self.check(node.left), self.check(node.right));
            assert!(left.abs_diff(right) <= 1, "unbalanced");
            assert_eq!(node.height, 1 + left.max(right));
            let children =
                [node.left, node.right].into_iter().flatten().map(|child| &self.nodes[child].reach);
            assert_eq!(Some(&node.reach), children.chain([&node.interval.end]).max());
            node.height
        }
    }

    fn interval() -> impl Strategy<Value = Interval> {
        (0u8..20, prop_oneof![3 => (1u8..20).prop_map(Some), 1 => Just(None)]).prop_map(|(start, length)| {
            let end = length.map_or(End::Open, |length| End::Before(vec![start + length].into()));
            Interval { start: vec![start].into(), end }
        })
    }

    proptest! {
        #[test]
        fn a_key_finds_what_a_list_of_ranges_finds(
            changes in prop::collection::vec((any::<bool>(), interval()), 0..200),
            keys in prop::collection::vec(0u8..45, 8),
        ) {
            let mut tree = IntervalTree::<u32>::default();
            let mut model = BTreeMap::<Interval, u32>::new();
            for (step, (add, interval)) in (1..).zip(changes) {
                if add {
                    *tree.entry(interval.clone()) = step;
                    model.insert(interval, step);
                } else {
                    prop_assert_eq!(tree.get_mut(&interval).copied(), model.get(&interval).copied());
                    prop_assert_eq!(tree.remove(&interval), model.remove(&interval));
                }
                tree.check(tree.root);
            }
            for key in keys {
                let mut found = Vec::new();
                tree.stab(&[key], &mut |value| found.push(*value));
                let expected: Vec<_> = model
                    .iter()
                    .filter(|(interval, _)| interval.start[..] <= [key][..] && interval.end.is_after(&[key]))
                    .map(|(_, value)| *value)
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn ranges_in_ascending_order_do_not_make_a_list() {
        let mut tree = IntervalTree::<()>::default();
        for start in 0..10_000_u32 {
            let start = Bytes::copy_from_slice(&start.to_be_bytes());
            tree.entry(Interval { start, end: End::Open });
        }
        assert!(tree.check(tree.root) <= 20);
    }
}

//! How writes are put into transactions: an instance is never split over two of them.

/// What one etcd transaction may hold. etcd refuses more than `--max-txn-ops` (128) operations in a list and more
/// than `--max-request-bytes` (1.5 MiB) of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) operations: usize,
    pub(crate) bytes: usize,
}

/// What one instance takes up in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) operations: usize,
    pub(crate) bytes: usize,
    /// Goes into a transaction of its own.
    pub(crate) alone: bool,
}

/// Writes: 128 puts, as many comparisons, and 1 MiB, which leaves a third of etcd's limit to the framing.
pub(crate) const WRITES: Capacity = Capacity { operations: 128, bytes: 1 << 20 };

/// Removals are nested transactions of one delete each, and etcd counts the operations of a parent against its
/// children: 64 leaves room for them.
pub(crate) const REMOVALS: Capacity = Capacity { operations: 64, bytes: 1 << 20 };

/// Packs `items`, in order, into as few transactions as a first-come packing gives. An item that alone is above the
/// capacity still goes, alone: etcd's refusal is then about that item and about no other.
pub(crate) fn pack<T>(items: impl IntoIterator<Item = (Load, T)>, capacity: Capacity) -> Vec<Vec<T>> {
    let mut packed: Vec<Vec<T>> = Vec::new();
    let mut open: Option<(usize, usize, Vec<T>)> = None;
    for (load, item) in items {
        if load.alone {
            packed.push(vec![item]);
            continue;
        }
        match &mut open {
            Some((operations, bytes, batch))
                if *operations + load.operations <= capacity.operations
                    && *bytes + load.bytes <= capacity.bytes =>
            {
                *operations += load.operations;
                *bytes += load.bytes;
                batch.push(item);
            }
            _ => {
                let full = open.replace((load.operations, load.bytes, vec![item]));
                packed.extend(full.map(|(_, _, batch)| batch));
            }
        }
    }
    packed.extend(open.map(|(_, _, batch)| batch));
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(operations: usize, bytes: usize) -> Load {
        Load { operations, bytes, alone: false }
    }

    #[test]
    fn ten_thousand_one_key_instances_take_79_transactions() {
        let packed = pack((0..10_000).map(|item| (load(1, 100), item)), WRITES);
        assert_eq!(packed.len(), 79);
    }

    #[test]
    fn an_instance_of_four_keys_is_not_split() {
        let packed = pack((0..33).map(|item| (load(4, 100), item)), WRITES);
        assert_eq!(packed.iter().map(Vec::len).collect::<Vec<_>>(), [32, 1]);
    }

    #[test]
    fn one_too_large_goes_by_itself() {
        let packed = pack([(load(1, 10), 'a'), (load(1, 1 << 21), 'b'), (load(1, 10), 'c')], WRITES);
        assert_eq!(packed, [vec!['a'], vec!['b'], vec!['c']]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_capacity_exceeded(
            items in proptest::collection::vec((1_usize..5, 0_usize..300_000, proptest::bool::weighted(0.1)), 0..400),
        ) {
            let loads: Vec<Load> =
                items.iter().map(|&(operations, bytes, alone)| Load { operations, bytes, alone }).collect();
            let packed = pack(loads.iter().copied().zip(0..), WRITES);
            let mut all: Vec<usize> = packed.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..loads.len()).collect::<Vec<_>>());
            for batch in &packed {
                prop_assert!(batch.iter().map(|&item| loads[item].operations).sum::<usize>() <= 128);
                prop_assert!(batch.iter().map(|&item| loads[item].bytes).sum::<usize>() <= 1 << 20);
                prop_assert!(batch.len() == 1 || batch.iter().all(|&item| !loads[item].alone));
            }
        }
    }
}

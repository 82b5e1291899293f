//! Which picks are long, by the instructions that they took.

use crate::steps::Steps;

/// So many times the median is long.
const LONG: u32 = 10;

/// By which tables a pick was made, and the one after it. They are numbered in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) used: usize,
    /// What was there once the pick had been made.
    pub(crate) after: usize,
}

/// The picks of a run, in their order.
pub(crate) struct Lengths {
    picks: Vec<(Steps, Tables)>,
}

// === impl Lengths ===

impl Lengths {
    /// Without what the marks take, which is the median of the first stretches: so many had no pick in them. `None` if the others are
    /// not as many as the picks.
    pub(crate) fn new(stretches: &[Steps], empty: usize, tables: &[Tables]) -> Option<Self> {
        let (empty, stretches) = stretches.split_at_checked(empty)?;
        let marks = median(empty);
        let picked = stretches.iter().map(|stretch| Steps {
            instructions: stretch.instructions.saturating_sub(marks.instructions),
            syscalls: stretch.syscalls.saturating_sub(marks.syscalls),
        });
        (stretches.len() == tables.len())
            .then(|| Self { picks: picked.zip(tables.iter().copied()).collect() })
    }

    pub(crate) fn len(&self) -> usize {
        self.picks.len()
    }

    /// Of the instructions and of the system calls.
    pub(crate) fn median(&self) -> Steps {
        median(&self.steps())
    }

    /// The most instructions of a pick.
    pub(crate) fn largest(&self) -> u32 {
        largest(&self.steps())
    }

    /// The picks above ten times the median, and those that enter the kernel more often than the median does: that work is not seen.
    pub(crate) fn long(&self) -> usize {
        let median = self.median();
        let long = |(steps, _): &&(Steps, Tables)| {
            steps.instructions > median.instructions.saturating_mul(LONG) || steps.syscalls > median.syscalls
        };
        self.picks.iter().filter(long).count()
    }

    /// The picks that enter the kernel.
    pub(crate) fn entering(&self) -> usize {
        self.picks.iter().filter(|(steps, _)| steps.syscalls > 0).count()
    }

    /// The picks whose table was replaced while they were made, and the most instructions of one.
    pub(crate) fn replaced(&self) -> (usize, u32) {
        let replaced: Vec<Steps> = self
            .picks
            .iter()
            .filter(|(_, tables)| tables.used != tables.after)
            .map(|(steps, _)| *steps)
            .collect();
        (replaced.len(), largest(&replaced))
    }

    /// The picks that were the first by their table, and the most instructions of one.
    pub(crate) fn first(&self) -> (usize, u32) {
        let pairs = self.picks.iter().zip(self.picks.iter().skip(1));
        let first: Vec<Steps> = pairs
            .filter(|((_, before), (_, tables))| before.after != tables.used)
            .map(|(_, (steps, _))| *steps)
            .collect();
        (first.len(), largest(&first))
    }

    fn steps(&self) -> Vec<Steps> {
        self.picks.iter().map(|(steps, _)| *steps).collect()
    }
}

fn largest(steps: &[Steps]) -> u32 {
    steps.iter().map(|steps| steps.instructions).max().unwrap_or(0)
}

/// Of each number by itself.
fn median(steps: &[Steps]) -> Steps {
    let middle = |of: fn(&Steps) -> u32| {
        let mut sorted: Vec<u32> = steps.iter().map(of).collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    };
    Steps { instructions: middle(|steps| steps.instructions), syscalls: middle(|steps| steps.syscalls) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: Tables = Tables { used: 1, after: 1 };

    /// Marks of 50 instructions and 2 system calls, and picks that take as much as `picks` says.
    fn lengths(picks: &[(u32, u32, Tables)]) -> Lengths {
        let marks = [Steps { instructions: 50, syscalls: 2 }; 3];
        let picked = picks.iter().map(|(instructions, syscalls, _)| Steps {
            instructions: 50 + instructions,
            syscalls: 2 + syscalls,
        });
        let stretches: Vec<Steps> = marks.into_iter().chain(picked).collect();
        let tables: Vec<Tables> = picks.iter().map(|(.., tables)| *tables).collect();
        Lengths::new(&stretches, marks.len(), &tables).unwrap()
    }

    #[test]
    fn marks_are_not_counted() {
        let lengths = lengths(&[(100, 0, SAME), (90, 0, SAME), (120, 0, SAME)]);
        assert_eq!(lengths.median(), Steps { instructions: 100, syscalls: 0 });
        assert_eq!((lengths.len(), lengths.largest()), (3, 120));
    }

    #[test]
    fn what_is_above_ten_times_the_median_is_long() {
        assert_eq!(lengths(&[(100, 0, SAME), (100, 0, SAME), (1_000, 0, SAME)]).long(), 0);
        assert_eq!(lengths(&[(100, 0, SAME), (100, 0, SAME), (1_001, 0, SAME)]).long(), 1);
    }

    #[test]
    fn what_enters_the_kernel_is_long_where_others_do_not() {
        let one = lengths(&[(100, 0, SAME), (100, 1, SAME), (100, 0, SAME)]);
        assert_eq!((one.long(), one.entering()), (1, 1));
        let all = lengths(&[(100, 1, SAME), (100, 1, SAME), (100, 1, SAME)]);
        assert_eq!((all.long(), all.entering()), (0, 3));
    }

    #[test]
    fn picks_beside_a_swap_are_told_apart() {
        let lengths = lengths(&[
            (1, 0, SAME),
            (5, 0, Tables { used: 1, after: 2 }),
            (2, 0, Tables { used: 2, after: 2 }),
            (7, 0, Tables { used: 3, after: 3 }),
            (3, 0, Tables { used: 3, after: 3 }),
        ]);
        assert_eq!(lengths.replaced(), (1, 5));
        assert_eq!(lengths.first(), (1, 7));
    }

    #[test]
    fn every_pick_has_a_stretch() {
        let stretches = [Steps::default(); 4];
        assert!(Lengths::new(&stretches, 3, &[SAME]).is_some());
        assert!(Lengths::new(&stretches, 3, &[SAME, SAME]).is_none());
        assert!(Lengths::new(&stretches, 5, &[]).is_none());
    }
}

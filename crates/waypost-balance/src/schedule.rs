//! A round of turns in which every endpoint has as many as its weight, spread as evenly as can be.
//!
//! After `t` turns an endpoint that is due the fraction `f` of all turns should have had `t * f`. Tijdeman's
//! algorithm ("The chairman assignment problem", Discrete Mathematics 32, 1980) keeps everyone within `1 - 1/(2k -
//! 2)` of that at all times, `k` being the number of endpoints, and no algorithm can do better in general. It gives
//! each turn to the one whose next turn is due the soonest, among those for whom the next turn is not too early:
//!
//! ```text
//! turn c + 1 is not too early from    t = (c + 1/m) / f         m = 2k - 2
//! and due at                          t = (c + 1 - 1/m) / f
//! ```

use crate::weights::Weights;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Rounds are exact up to this many turns, or four for each endpoint. Beyond, weights are rounded to fractions of so
/// many turns.
const MOST_TURNS: u64 = 16_384;

/// Whose turn is when: indices of endpoints. Empty for no endpoints.
pub(crate) fn schedule(weights: &Weights) -> Box<[u32]> {
    let weighted: Vec<(u32, u64)> = (0_u32..)
        .zip(weights.as_slice())
        .filter(|&(_, &weight)| weight > 0)
        .map(|(index, &weight)| (index, u64::from(weight)))
        .collect();
    match weighted.as_slice() {
        [] => Box::default(),
        [(only, _)] => Box::from([*only]),
        _ => {
            let turns = turns(weighted);
            // All are due at the same time, and whoever comes first is first: what the schedule would give.
            let equal = turns.iter().all(|(_, turns)| *turns == 1);
            if equal { turns.iter().map(|(index, _)| *index).collect() } else { spread(&turns) }
        }
    }
}

/// How many turns each has in a round: at least one.
fn turns(mut weighted: Vec<(u32, u64)>) -> Vec<(u32, u64)> {
    let divisor = weighted.iter().fold(0, |known, &(_, weight)| greatest_common_divisor(known, weight));
    let total: u64 = weighted.iter().map(|(_, weight)| weight).sum();
    let most = MOST_TURNS.max(4 * weighted.len() as u64);
    for (_, weight) in &mut weighted {
        *weight = if total / divisor <= most {
            *weight / divisor
        } else {
            // Rounded; weights are below 2^32 and `most` is below 2^35, so u128 is needed.
            let scaled = (u128::from(*weight) * u128::from(most) + u128::from(total / 2)) / u128::from(total);
            u64::try_from(scaled).unwrap_or(most).max(1)
        };
    }
    weighted
}

fn spread(turns: &[(u32, u64)]) -> Box<[u32]> {
    let round: u64 = turns.iter().map(|(_, turns)| turns).sum();
    let m = 2 * turns.len() as u64 - 2;
    // Of the turn after `had` turns: the first instant at which it is not too early, and the last at which it is not
    // too late.
    let window = |turns: u64, had: u64| {
        let [round, m, turns, had] = [round, m, turns, had].map(u128::from);
        let earliest = (round * (had * m + 1)).div_ceil(turns * m);
        let due = round * (had * m + m - 1) / (turns * m);
        (earliest, due)
    };
    let mut had = vec![0_u64; turns.len()];
    let mut early: BinaryHeap<_> =
        turns.iter().enumerate().map(|(at, &(_, turns))| Reverse((window(turns, 0), at))).collect();
    let mut eligible = BinaryHeap::new();
    (1..=u128::from(round))
        .filter_map(|now| {
            while let Some(&Reverse(((earliest, due), at))) = early.peek()
                && earliest <= now
            {
                early.pop();
                eligible.push(Reverse((due, at)));
            }
            // There always is one that is eligible, by the theorem.
            let Reverse((_, at)) = eligible.pop()?;
            had[at] += 1;
            let (index, turns) = turns[at];
            if had[at] < turns {
                early.push(Reverse((window(turns, had[at]), at)));
            }
            Some(index)
        })
        .collect()
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule_of(weights: &[u32]) -> Box<[u32]> {
        schedule(&Weights::from_slice(weights))
    }

    #[test]
    fn small_rounds() {
        assert_eq!(schedule_of(&[]), Box::from([]));
        assert_eq!(schedule_of(&[0, 7, 0]), Box::from([1]));
        assert_eq!(schedule_of(&[100, 100, 100]), Box::from([0, 1, 2]));
        let spread = schedule_of(&[50, 10, 10]);
        assert_eq!(spread.len(), 7);
        // As smooth as nginx's: never the same one three times on end, though it has five turns of seven.
        assert_eq!(spread.iter().filter(|&&index| index == 0).count(), 5);
        assert!(!spread[..3].iter().all(|&index| index == 0), "{spread:?}");
    }

    #[test]
    fn a_round_is_bounded_whatever_the_weights() {
        let spread = schedule_of(&[u32::MAX, u32::MAX - 1, 1]);
        assert!((16_384..=16_386).contains(&spread.len()), "{}", spread.len());
        assert_eq!(spread.iter().filter(|&&index| index == 2).count(), 1);
        assert!(schedule_of(&vec![u32::MAX; 30_000]).len() == 30_000);
    }

    #[test]
    fn equal_weights_are_in_turn() {
        for count in 2..40 {
            let turns: Vec<(u32, u64)> = (0..count).map(|index| (index * 3, 1)).collect();
            let in_turn: Box<[u32]> = turns.iter().map(|(index, _)| *index).collect();
            assert_eq!(spread(&turns), in_turn);
        }
        assert_eq!(schedule_of(&[7, 0, 7, 7]), Box::from([0, 2, 3]));
    }

    proptest! {
        /// Tijdeman's theorem, at every turn of the round.
        #[test]
        fn nobody_is_ever_a_turn_ahead_or_behind(weights in prop::collection::vec(0_u32..60, 1..24)) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let round = schedule_of(&weights);
            let total: u32 = weights.iter().sum();
            let mut had = vec![0_u32; weights.len()];
            let sharers = weights.iter().filter(|&&weight| weight > 0).fold(0.0, |count, _| count + 1.0);
            let bound = if sharers < 2.0 { 1e-9 } else { 1.0 - 1.0 / (2.0 * sharers - 2.0) + 1e-9 };
            for (&index, turn) in round.iter().zip(1_u32..) {
                had[index as usize] += 1;
                for (&had, &weight) in had.iter().zip(&weights) {
                    let due = f64::from(turn) * f64::from(weight) / f64::from(total);
                    prop_assert!((f64::from(had) - due).abs() <= bound, "{had} of {due} at turn {turn}: {round:?}");
                }
            }
        }
    }
}

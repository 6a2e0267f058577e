//! Which of those who wait get a stretch of freed time: the choice that fills the most minutes; of these the one that serves the best
//! ranked, then the next best, and so on. Rank is the order of the queue: priority, then age.
//!
//! Times are counted on the 5-minute grid from the start of the stretch.

use kit::ids::PatientId;

/// Stretches up to this long are filled by the best choice there is; longer ones part by part, from the left.
const EXACT: u32 = 12;
/// Looks at partial choices after which the best one found stands. Visits of 15 minutes and more never come near it.
const MOST_LOOKS: u32 = 200_000;

/// One entry of the queue and where its visit could be. The place in the list is its rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose: nobody gets two.
    pub patient: PatientId,
    /// Provider's time before the visit.
    pub before: u32,
    /// The visit.
    pub visit: u32,
    /// Provider's time after it.
    pub after: u32,
    /// Where the visit may start, ascending.
    pub starts: Vec<u32>,
}

impl Wish {
    fn takes(&self) -> u32 {
        self.before + self.visit + self.after
    }

    /// Where it may start with all of the provider's time within `from` and `end`.
    fn starts_within(&self, from: u32, end: u32) -> &[u32] {
        let first = self.starts.partition_point(|start| *start < from + self.before);
        let until = self.starts.partition_point(|start| start + self.visit + self.after <= end);
        self.starts.get(first..until).unwrap_or_default()
    }

    /// The first start with all of the provider's time at `from` or later, and before `end`.
    fn first_start(&self, from: u32, end: u32) -> Option<u32> {
        self.starts_within(from, end).first().copied()
    }
}

/// A visit put into the stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Whose, by rank.
    pub wish: usize,
    /// Start of the visit.
    pub start: u32,
}

/// Fills a stretch of `length`, from the left.
pub fn fill(length: u32, wishes: &[Wish]) -> Vec<Placement> {
    let longest = wishes.iter().map(Wish::takes).max().unwrap_or(0);
    let part = EXACT.max(longest);
    let mut placed: Vec<Placement> = vec![];
    let mut from = 0;
    while from < length {
        let end = if length - from <= part { length } else { from + part };
        let mut search = Search::new(wishes, &placed, from, end);
        search.look(from);
        if end == length {
            placed.extend(search.best);
            break;
        }
        match search.best.last() {
            Some(last) => {
                let wish = &wishes[last.wish];
                from = last.start + wish.visit + wish.after;
                placed.extend(search.best);
            }
            // What starts later may still reach beyond this part.
            None => from += 1,
        }
    }
    placed
}

/// All sequences of visits, each as early as it can be after the one before it: an earlier one leaves more room for the rest.
struct Search<'a> {
    wishes: &'a [Wish],
    /// Ranks of alike wishes, best first: of these a better one is as good as any.
    kinds: Vec<Vec<usize>>,
    end: u32,
    taken: Vec<PatientId>,
    chosen: Vec<Placement>,
    filled: u32,
    best: Vec<Placement>,
    best_filled: u32,
    best_ranks: Vec<usize>,
    looks: u32,
}

impl<'a> Search<'a> {
    fn new(wishes: &'a [Wish], placed: &[Placement], from: u32, end: u32) -> Self {
        let mut kinds: Vec<Vec<usize>> = vec![];
        for (rank, wish) in wishes.iter().enumerate() {
            let starts = wish.starts_within(from, end);
            if starts.is_empty() {
                continue;
            }
            let alike = |other: &Wish| {
                (other.before, other.visit, other.after, other.starts_within(from, end))
                    == (wish.before, wish.visit, wish.after, starts)
            };
            match kinds.iter_mut().find(|kind| alike(&wishes[kind[0]])) {
                Some(kind) => kind.push(rank),
                None => kinds.push(vec![rank]),
            }
        }
        Self {
            wishes,
            kinds,
            end,
            taken: placed.iter().map(|p| wishes[p.wish].patient).collect(),
            chosen: vec![],
            filled: 0,
            best: vec![],
            best_filled: 0,
            best_ranks: vec![],
            looks: 0,
        }
    }

    fn look(&mut self, from: u32) {
        self.looks += 1;
        self.keep_if_better();
        if self.looks > MOST_LOOKS || self.filled + self.end.saturating_sub(from) < self.best_filled {
            return;
        }
        for kind in 0..self.kinds.len() {
            for member in 0..self.kinds[kind].len() {
                let rank = self.kinds[kind][member];
                let wish = &self.wishes[rank];
                if self.taken.contains(&wish.patient) {
                    continue;
                }
                let Some(start) = wish.first_start(from, self.end) else { break };
                self.taken.push(wish.patient);
                self.chosen.push(Placement { wish: rank, start });
                self.filled += wish.visit;
                self.look(start + wish.visit + wish.after);
                self.filled -= wish.visit;
                self.chosen.pop();
                self.taken.pop();
                // The next one alike is only better when this one's patient is wanted for another wish.
                if self.wishes.iter().filter(|other| other.patient == wish.patient).count() == 1 {
                    break;
                }
            }
        }
    }

    fn keep_if_better(&mut self) {
        if self.filled < self.best_filled {
            return;
        }
        let mut ranks: Vec<usize> = self.chosen.iter().map(|p| p.wish).collect();
        ranks.sort_unstable();
        if self.filled > self.best_filled || ranks < self.best_ranks {
            self.best.clone_from(&self.chosen);
            (self.best_filled, self.best_ranks) = (self.filled, ranks);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn patient(number: u128) -> PatientId {
        Uuid::from_u128(number).into()
    }

    fn wish(number: u128, visit: u32, starts: impl IntoIterator<Item = u32>) -> Wish {
        let starts = starts.into_iter().collect();
        Wish { patient: patient(number), before: 0, visit, after: 0, starts }
    }

    fn ranks(placed: &[Placement]) -> Vec<usize> {
        let mut ranks: Vec<_> = placed.iter().map(|p| p.wish).collect();
        ranks.sort_unstable();
        ranks
    }

    #[test]
    fn half_an_hour_serves_one_long_visit_or_two_short_ones_whichever_fills_it() {
        let (long, short) = (|n| wish(n, 6, [0]), |n| wish(n, 3, [0, 3]));
        assert_eq!(ranks(&fill(6, &[short(1), long(2)])), [1], "one short visit leaves half of it empty");
        assert_eq!(ranks(&fill(6, &[short(1), long(2), short(3)])), [0, 2], "then priority and age decide");
        assert_eq!(ranks(&fill(6, &[long(1), short(2), short(3)])), [0]);
    }

    #[test]
    fn nobody_gets_two_and_a_long_stretch_is_filled_from_the_left() {
        let twice = [wish(1, 3, [0, 3]), wish(1, 3, [0, 3]), wish(2, 3, [0, 3])];
        assert_eq!(ranks(&fill(6, &twice)), [0, 2]);
        let queue: Vec<_> = (0..40).map(|n| wish(n, 3, (0..96).step_by(3))).collect();
        let placed = fill(96, &queue);
        assert_eq!(ranks(&placed), (0..32).collect::<Vec<_>>());
        assert!(placed.windows(2).all(|pair| pair[0].start < pair[1].start), "{placed:?}");
    }

    /// Filled time and ranks of the best of all choices there are, found by trying every start of every wish.
    fn brute_force(length: u32, wishes: &[Wish]) -> (Reverse<u32>, Vec<usize>) {
        fn go(
            length: u32,
            wishes: &[Wish],
            rank: usize,
            chosen: &mut Vec<Placement>,
            best: &mut (Reverse<u32>, Vec<usize>),
        ) {
            if rank == wishes.len() {
                let filled = chosen.iter().map(|p| wishes[p.wish].visit).sum();
                let ranks = chosen.iter().map(|p| p.wish).collect();
                let this = (Reverse(filled), ranks);
                if this < *best {
                    *best = this;
                }
                return;
            }
            go(length, wishes, rank + 1, chosen, best);
            for &start in &wishes[rank].starts {
                let placement = Placement { wish: rank, start };
                if fits(length, wishes, chosen, placement) {
                    chosen.push(placement);
                    go(length, wishes, rank + 1, chosen, best);
                    chosen.pop();
                }
            }
        }
        let mut best = (Reverse(0), vec![]);
        go(length, wishes, 0, &mut vec![], &mut best);
        best
    }

    fn fits(length: u32, wishes: &[Wish], chosen: &[Placement], new: Placement) -> bool {
        let span = |p: &Placement| {
            let wish = &wishes[p.wish];
            (i64::from(p.start) - i64::from(wish.before), i64::from(p.start + wish.visit + wish.after))
        };
        let (from, to) = span(&new);
        from >= 0
            && to <= i64::from(length)
            && chosen.iter().all(|other| {
                let (a, b) = span(other);
                (to <= a || b <= from) && wishes[other.wish].patient != wishes[new.wish].patient
            })
    }

    fn any_wish() -> impl Strategy<Value = Wish> {
        let starts = proptest::collection::btree_set(0..12u32, 0..5);
        (0..5u128, 0..2u32, 1..7u32, 0..2u32, starts).prop_map(|(number, before, visit, after, starts)| {
            Wish { patient: patient(number), before, visit, after, starts: starts.into_iter().collect() }
        })
    }

    proptest! {
        #[test]
        fn no_choice_fills_more_or_serves_better_ranked(
            length in 0..=EXACT,
            wishes in proptest::collection::vec(any_wish(), 0..6),
        ) {
            let placed = fill(length, &wishes);
            let filled = placed.iter().map(|p| wishes[p.wish].visit).sum();
            prop_assert_eq!((Reverse(filled), ranks(&placed)), brute_force(length, &wishes));
        }

        #[test]
        fn whatever_is_placed_fits(
            length in 0..60u32,
            wishes in proptest::collection::vec(any_wish(), 0..30),
        ) {
            let placed = fill(length, &wishes);
            for (i, placement) in placed.iter().enumerate() {
                prop_assert!(wishes[placement.wish].starts.contains(&placement.start));
                prop_assert!(fits(length, &wishes, &placed[..i], *placement));
            }
        }
    }
}

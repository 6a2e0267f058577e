//! Sets of 5-minute cells, 64 to a word.
//!
//! Cells and words are counted from 1970-01-01T00:00Z, so that sets of any two providers, rooms or clinics line up word by word
//! and are combined without looking at a clock.

use super::GRID_MINUTES;
use super::span::{Minute, Span, Spans};

/// Minutes of a cell.
const CELL: Minute = GRID_MINUTES as Minute;
/// Cells of a word.
const WORD: i64 = u64::BITS as i64;

/// The word that a minute's cell is in.
pub fn word_of(minute: Minute) -> i64 {
    minute.div_euclid(CELL * WORD)
}

/// The word and the bit of the cell that a minute lies in.
pub fn position(minute: Minute) -> (i64, u32) {
    let cell = minute.div_euclid(CELL);
    (cell.div_euclid(WORD), cell.rem_euclid(WORD) as u32)
}

/// The first minute of a cell of a word.
pub fn minute_of(word: i64, bit: u32) -> Minute {
    (word * WORD + i64::from(bit)) * CELL
}

/// How many whole cells an amount of minutes fills at least.
pub fn cells(minutes: Minute) -> usize {
    usize::try_from(minutes / CELL).unwrap_or_default()
}

/// A run of cells, half-open.
#[derive(Clone, Copy)]
struct Cells(i64, i64);

impl Cells {
    /// The cells that lie in `span` whole.
    fn inside(span: Span) -> Self {
        Self(Self::beginning(span).0, span.end.div_euclid(CELL))
    }

    /// The cells that `span` touches.
    fn touching(span: Span) -> Self {
        let first = span.start.div_euclid(CELL);
        let last = (span.end - 1).div_euclid(CELL);
        Self(first, if span.is_empty() { first } else { last + 1 })
    }

    /// The cells that begin in `span`.
    fn beginning(span: Span) -> Self {
        let up = |minute: Minute| minute.div_euclid(CELL) + i64::from(minute.rem_euclid(CELL) != 0);
        Self(up(span.start), up(span.end))
    }

    /// The bits of word number `word` that lie in the run.
    fn mask(self, word: i64) -> u64 {
        let from = (self.0 - word * WORD).clamp(0, WORD);
        let to = (self.1 - word * WORD).clamp(0, WORD);
        if from >= to { 0 } else { (u64::MAX >> (WORD - (to - from))) << from }
    }

    /// The words it reaches into, of those from `first` to `first + count`, as indices.
    fn words(self, first: i64, count: usize) -> std::ops::Range<usize> {
        let index = |word: i64| usize::try_from(word - first).unwrap_or_default().min(count);
        if self.0 >= self.1 {
            0..0
        } else {
            index(self.0.div_euclid(WORD))..index((self.1 - 1).div_euclid(WORD) + 1)
        }
    }
}

/// The cells of a stretch of time that are in the set; outside the stretch none is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    first: i64,
    words: Box<[u64]>,
}

impl Bits {
    /// The empty set over the words that `range` touches.
    pub fn over(range: Span) -> Self {
        let (first, last) = (word_of(range.start), word_of(range.end - 1));
        let count = usize::try_from(last - first + 1).unwrap_or_default();
        Self { first, words: vec![0; count].into() }
    }

    /// The cells that lie whole in `spans`.
    pub fn inside(range: Span, spans: &Spans) -> Self {
        let mut bits = Self::over(range);
        spans.iter().for_each(|span| bits.fill(Cells::inside(span)));
        bits
    }

    /// The cells that any of `spans` touches.
    pub fn touching(range: Span, spans: impl Iterator<Item = Span>) -> Self {
        let mut bits = Self::over(range);
        spans.for_each(|span| bits.fill(Cells::touching(span)));
        bits
    }

    fn fill(&mut self, cells: Cells) {
        for i in cells.words(self.first, self.words.len()) {
            self.words[i] |= cells.mask(self.first + i as i64);
        }
    }

    /// Whether every cell that `span` touches is in the set.
    pub fn covers(&self, span: Span) -> bool {
        let cells = Cells::touching(span);
        let words = cells.words(self.first, self.words.len());
        let within =
            word_of(span.start) >= self.first && word_of(span.end - 1) < self.first + self.words.len() as i64;
        within && words.clone().all(|i| cells.mask(self.first + i as i64) & !self.words[i] == 0)
    }

    /// Minutes of `range` that are in the set.
    pub fn minutes_within(&self, range: Span) -> Minute {
        let cells = Cells::inside(range);
        let words = cells.words(self.first, self.words.len());
        let count: u32 =
            words.map(|i| (self.words[i] & cells.mask(self.first + i as i64)).count_ones()).sum();
        Minute::from(count) * CELL
    }

    /// Copies words from number `from` on.
    pub fn read(&self, from: i64, into: &mut [u64]) {
        let skip = usize::try_from(self.first - from).unwrap_or_default().min(into.len());
        let start = usize::try_from(from - self.first).unwrap_or_default().min(self.words.len());
        let (before, rest) = into.split_at_mut(skip);
        let count = rest.len().min(self.words.len() - start);
        let (found, after) = rest.split_at_mut(count);
        before.fill(0);
        found.copy_from_slice(&self.words[start..start + count]);
        after.fill(0);
    }

    /// The set as spans.
    pub fn spans(&self) -> Spans {
        let cells = self.words.iter().enumerate().flat_map(|(i, word)| {
            let word_number = self.first + i as i64;
            runs(*word).map(move |(from, to)| {
                Span::new(
                    minute_of(word_number, from),
                    minute_of(word_number, from) + Minute::from(to - from) * CELL,
                )
            })
        });
        cells.collect()
    }

    /// Combines it with another set, word by word; where the other ends it counts as empty.
    pub fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = vec![0; self.words.len()];
        other.read(self.first, &mut words);
        for (theirs, ours) in words.iter_mut().zip(&self.words) {
            *theirs = combine(*ours, *theirs);
        }
        Self { first: self.first, words: words.into() }
    }
}

/// The runs of ones in a word, as half-open ranges of bits.
fn runs(mut word: u64) -> impl Iterator<Item = (u32, u32)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let zeros = word.trailing_zeros();
            let ones = (word >> zeros).trailing_ones();
            let from = at + zeros;
            at = from + ones;
            word = word.checked_shr(zeros + ones).unwrap_or_default();
            (from, at)
        })
    })
}

/// The numbers of the bits that are set, lowest first.
pub fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            bit
        })
    })
}

/// The bits of word number `word` whose cells begin in `range`.
pub fn mask(word: i64, range: Span) -> u64 {
    Cells::beginning(range).mask(word)
}

/// Leaves of a set the cells at which a run of `length` cells of it begins. What lies behind the end counts as missing.
pub fn keep_runs<const N: usize>(words: &mut [u64; N], length: usize) {
    let mut have = 1;
    while have < length {
        let by = have.min(length - have);
        and_shifted(words, by);
        have += by;
    }
}

/// Keeps the cells that have a cell of the set `by` cells after them.
fn and_shifted<const N: usize>(words: &mut [u64; N], by: usize) {
    let (skip, bits) = (by / 64, (by % 64) as u32);
    // Words `skip` later; the one behind the end is empty.
    let mut later = [0; N];
    later[..N - skip.min(N)].copy_from_slice(&words[skip.min(N)..]);
    let mut carry = [0; N];
    carry[..N - 1].copy_from_slice(&later[1..]);
    // Two shifts, for one by 64 is none.
    for i in 0..N {
        words[i] &= later[i] >> bits | carry[i] << 1 << (63 - bits);
    }
}

/// The same set `by` cells later, `by` less than a word; what lies before the beginning counts as missing.
pub fn delay<const N: usize>(words: &mut [u64; N], by: usize) {
    debug_assert!(by < 64, "buffers are shorter than a word");
    for i in (0..N).rev() {
        let before = if i == 0 { 0 } else { words[i - 1] };
        words[i] = words[i] << by | before >> 1 >> (63 - by);
    }
}

/// Turns 64 sets of 64 cells around: afterwards set `n` tells which sets had cell `n`. By halves, quarters and so on, as in
/// Warren, Hacker's Delight, 7-3.
pub fn transpose(sets: &mut [u64; 64]) {
    let (mut width, mut low) = (32, u64::MAX >> 32);
    while width > 0 {
        let mut row = 0;
        while row < 64 {
            let swap = (sets[row] >> width ^ sets[row + width]) & low;
            sets[row + width] ^= swap;
            sets[row] ^= swap << width;
            row = (row + width + 1) & !width;
        }
        width /= 2;
        low ^= low << width;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: Span = Span::new(-1_000, 3_000);

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let span = (-1_100..3_100i64, 0..700i64).prop_map(|(start, length)| Span::new(start, start + length));
        prop::collection::vec(span, 0..8)
    }

    /// The slow, obvious set: the cells, one by one.
    fn cells_of(bits: &Bits) -> Vec<i64> {
        bits.words
            .iter()
            .enumerate()
            .flat_map(|(i, word)| ones(*word).map(move |bit| (bits.first + i as i64) * 64 + i64::from(bit)))
            .collect()
    }

    fn all_cells(bits: &Bits) -> std::ops::Range<i64> {
        bits.first * 64..(bits.first + bits.words.len() as i64) * 64
    }

    proptest! {
        #[test]
        fn sets_agree_with_lists_of_cells(a in spans(), b in spans(), probe in -1_500..3_500i64, length in 1..900i64) {
            let minutes: Spans = a.iter().copied().collect();
            let inside = Bits::inside(RANGE, &minutes);
            let all = |m: i64| (0..5).all(|n| minutes.meets(Span::new(m * 5 + n, m * 5 + n + 1)));
            let any = |m: i64| (0..5).any(|n| minutes.meets(Span::new(m * 5 + n, m * 5 + n + 1)));
            prop_assert_eq!(cells_of(&inside), all_cells(&inside).filter(|c| all(*c)).collect::<Vec<_>>());
            let touching = Bits::touching(RANGE, a.into_iter());
            prop_assert_eq!(cells_of(&touching), all_cells(&touching).filter(|c| any(*c)).collect::<Vec<_>>());

            let span = Span::new(probe, probe + length);
            let known = |c: i64| cells_of(&touching).contains(&c);
            let touched = || span.start.div_euclid(5)..(span.end + 4).div_euclid(5);
            prop_assert_eq!(touching.covers(span), touched().all(known));
            let whole = (span.start + 4).div_euclid(5)..span.end.div_euclid(5);
            prop_assert_eq!(touching.minutes_within(span), 5 * whole.filter(|c| known(*c)).count() as i64);

            prop_assert_eq!(Bits::inside(RANGE, &inside.spans()), inside.clone());
            let other = Bits::touching(RANGE, b.into_iter());
            let both: Vec<_> = cells_of(&inside).into_iter().filter(|c| cells_of(&other).contains(c)).collect();
            prop_assert_eq!(cells_of(&inside.zip(&other, |x, y| x & y)), both);
            let mut words = [7; 5];
            inside.read(word_of(probe), &mut words);
            let read = Bits { first: word_of(probe), words: words.into() };
            let expected: Vec<_> = cells_of(&inside).into_iter().filter(|c| all_cells(&read).contains(c)).collect();
            prop_assert_eq!(cells_of(&read), expected);
        }

        #[test]
        fn runs_and_delays_agree_with_looking_cell_by_cell(
            words in prop::array::uniform6(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]), length in 1..200usize, by in 0..64usize,
        ) {
            let set = |words: &[u64], cell: usize| words.get(cell / 64).is_some_and(|w| w >> (cell % 64) & 1 == 1);
            let mut kept = words;
            keep_runs(&mut kept, length);
            let mut late = words;
            delay(&mut late, by);
            for cell in 0..words.len() * 64 {
                prop_assert_eq!(set(&kept, cell), (cell..cell + length).all(|c| set(&words, c)), "cell {}", cell);
                prop_assert_eq!(set(&late, cell), cell >= by && set(&words, cell - by), "cell {}", cell);
            }
        }

        #[test]
        fn a_transposed_set_tells_who_had_a_cell(sets in prop::collection::vec(any::<u64>(), 64)) {
            let sets: [u64; 64] = sets.try_into().unwrap();
            let mut turned = sets;
            transpose(&mut turned);
            for (row, set) in sets.iter().enumerate() {
                for (cell, column) in turned.iter().enumerate() {
                    prop_assert_eq!(set >> cell & 1, column >> row & 1);
                }
            }
        }
    }
}

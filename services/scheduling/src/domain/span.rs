//! Time as half-open stretches of minutes, and sets of them.

use chrono::{DateTime, Utc};

/// Minutes since 1970-01-01T00:00Z.
pub type Minute = i64;

/// The minute that `instant` lies in.
pub fn minute(instant: DateTime<Utc>) -> Minute {
    instant.timestamp().div_euclid(60)
}

/// The start of a minute.
pub fn instant(minute: Minute) -> DateTime<Utc> {
    DateTime::from_timestamp(minute.saturating_mul(60), 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Half-open, `[start, end)`; empty when the end is not after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First minute.
    pub start: Minute,
    /// First minute after it.
    pub end: Minute,
}

impl Span {
    /// From `start` to `end`.
    pub const fn new(start: Minute, end: Minute) -> Self {
        Self { start, end }
    }

    /// Holds no minute.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// What both have; empty when they do not meet.
    pub fn overlap(self, other: Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Longer by `before` and `after`.
    pub const fn widened(self, before: Minute, after: Minute) -> Self {
        Self::new(self.start - before, self.end + after)
    }
}

/// A set of minutes as the fewest spans: sorted, none empty, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut sorted: Vec<Span> = spans.into_iter().filter(|s| !s.is_empty()).collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, kept| {
            let joins = next.start <= kept.end;
            if joins {
                kept.end = kept.end.max(next.end);
            }
            joins
        });
        Self(sorted)
    }
}

impl Spans {
    /// The spans, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    /// Whether it holds no minute.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spans that meet `range`, whole.
    pub fn meeting(&self, range: Span) -> &[Span] {
        let from = self.0.partition_point(|s| s.end <= range.start);
        let to = self.0.partition_point(|s| s.start < range.end);
        self.0.get(from..to).unwrap_or_default()
    }

    /// Whether any minute of `span` is in the set.
    pub fn meets(&self, span: Span) -> bool {
        !self.meeting(span).is_empty()
    }

    /// Whether every minute of `span` is in the set.
    pub fn covers(&self, span: Span) -> bool {
        span.is_empty()
            || self.meeting(span).first().is_some_and(|s| s.start <= span.start && span.end <= s.end)
    }

    /// The part inside `range`.
    pub fn within(&self, range: Span) -> Self {
        Self(self.meeting(range).iter().map(|s| s.overlap(range)).filter(|s| !s.is_empty()).collect())
    }

    /// How many minutes of `range` are in the set.
    pub fn minutes_within(&self, range: Span) -> Minute {
        self.meeting(range).iter().map(|s| s.overlap(range)).map(|s| s.end - s.start).sum()
    }

    /// The minutes that either has.
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// The minutes that both have.
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.as_slice(), other.0.as_slice());
        let mut both = vec![];
        while let (Some(a), Some(b)) = (left.first(), right.first()) {
            let overlap = a.overlap(*b);
            if !overlap.is_empty() {
                both.push(overlap);
            }
            if a.end <= b.end { left = &left[1..] } else { right = &right[1..] }
        }
        Self(both)
    }

    /// The minutes that `other` lacks.
    pub fn subtract(&self, other: &Self) -> Self {
        let mut kept = Vec::with_capacity(self.0.len());
        for span in self.iter() {
            let mut start = span.start;
            for gap in other.meeting(span) {
                kept.push(Span::new(start, gap.start));
                start = gap.end;
            }
            kept.push(Span::new(start, span.end));
        }
        kept.retain(|s| !s.is_empty());
        Self(kept)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTES: Minute = 64;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let span = (0..MINUTES, -2..12i64).prop_map(|(start, length)| Span::new(start, start + length));
        prop::collection::vec(span, 0..8)
    }

    /// The slow, obvious set: one flag a minute.
    fn flags(spans: &[Span]) -> Vec<bool> {
        (0..MINUTES + 16).map(|m| spans.iter().any(|s| s.start <= m && m < s.end)).collect()
    }

    fn agree(set: &Spans, expected: impl Fn(usize) -> bool) {
        let flags = flags(&set.0);
        assert!((0..flags.len()).all(|m| flags[m] == expected(m)), "{set:?}");
        assert!(set.0.iter().all(|s| !s.is_empty()), "{set:?} has an empty span");
        assert!(set.0.windows(2).all(|w| w[0].end < w[1].start), "{set:?} is not the fewest spans");
    }

    proptest! {
        #[test]
        fn sets_of_spans_agree_with_sets_of_minutes(a in spans(), b in spans(), start in 0..MINUTES, length in 0..20i64) {
            let (x, y) = (flags(&a), flags(&b));
            let (left, right): (Spans, Spans) = (a.into_iter().collect(), b.into_iter().collect());
            let range = Span::new(start, (start + length).min(MINUTES + 16));
            let inside = |m: usize| range.start <= m as Minute && (m as Minute) < range.end;
            agree(&left, |m| x[m]);
            agree(&left.union(&right), |m| x[m] || y[m]);
            agree(&left.intersect(&right), |m| x[m] && y[m]);
            agree(&left.subtract(&right), |m| x[m] && !y[m]);
            agree(&left.within(range), |m| x[m] && inside(m));
            let within = (0..x.len()).filter(|m| inside(*m) && x[*m]).count() as Minute;
            prop_assert_eq!(left.minutes_within(range), within);
            prop_assert_eq!(left.covers(range), within == range.end - range.start);
            prop_assert_eq!(!range.is_empty() && left.meets(range), within > 0);
        }
    }
}

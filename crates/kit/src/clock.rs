//! Time as an argument. Business code takes `now` from a [`Clock`]; this file is the only place that reads the machine's.
//!
//! What replicas race for (a hold's end, a claim) is judged by the database's clock instead, through the SQL function
//! `clock.now()` that [`crate::bootstrap`] installs. A simulated suite adds one offset to both.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// The machine's clock, or the same plus an offset that only a sandbox call advances.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// The machine's clock plus a shared offset.
    Simulated(Offset),
}

impl Clock {
    /// The present instant.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Simulated(offset) => Utc::now() + offset.get(),
        }
    }
}

/// How far a simulated suite is ahead of the machine's clock; whole microseconds, shared by every holder.
#[derive(Clone, Debug, Default)]
pub struct Offset(Arc<AtomicI64>);

impl Offset {
    /// An offset of `by`.
    pub fn new(by: TimeDelta) -> Self {
        Self(Arc::new(AtomicI64::new(micros(by))))
    }

    /// The offset now.
    pub fn get(&self) -> TimeDelta {
        TimeDelta::microseconds(self.0.load(Ordering::SeqCst))
    }

    /// Replaces the offset, for every holder at once.
    pub fn set(&self, by: TimeDelta) {
        self.0.store(micros(by), Ordering::SeqCst);
    }
}

fn micros(by: TimeDelta) -> i64 {
    by.num_microseconds().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_clock_runs_ahead_by_its_offset_for_every_holder() {
        let offset = Offset::default();
        let (simulated, system) = (Clock::Simulated(offset.clone()), Clock::System);
        offset.set(TimeDelta::days(2));
        assert!(simulated.now() - system.now() > TimeDelta::days(2) - TimeDelta::minutes(1));
    }
}

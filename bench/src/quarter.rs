//! A quarter of a busy clinic, with the waitlist and without: appointments and scheduling as they are, on PostgreSQL and NATS, and
//! simulated time. Both quarters have the same patients, with the same dice.

mod clinic;
mod demand;
mod outcome;
mod story;

use chrono::{Datelike as _, Days, NaiveDate};
use chrono_tz::Tz;
use clap::Args;
use scheduling::domain::span::Minute;
use scheduling::domain::zone;
use serde_json::{Value, json};

use crate::processes;
use story::Story;

/// The clinic's time zone.
const ZONE: Tz = Tz::America__Chicago;
/// Who work there, and from when to when, in minutes of the day.
const PROVIDERS: usize = 4;
const SHIFTS: [(u16, u16); 2] = [(8 * 60, 12 * 60), (13 * 60, 17 * 60)];
/// Weeks before those that count, in which everything finds its level.
const RUN_IN_WEEKS: u64 = 2;
/// When the first patients ask on the first day, in minutes of the day.
const FIRST_MINUTE: u16 = 7 * 60;
const HOUR: Minute = 60;
const DAY: Minute = 24 * HOUR;

/// How much to simulate.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Weeks.
    #[arg(long, default_value_t = 13)]
    weeks: usize,
    /// Another seed, other patients.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Which weeks.
#[derive(Clone, Copy, Debug)]
struct Quarter {
    weeks: usize,
}

impl Quarter {
    /// Its first day, a Monday: the waitlist opens. Clocks go forward in the tenth week.
    fn first(self) -> NaiveDate {
        NaiveDate::from_ymd_opt(2027, 1, 4).expect("a date")
    }

    /// The last Friday.
    fn last(self) -> NaiveDate {
        self.first() + Days::new(self.weeks as u64 * 7 - 3)
    }

    /// The Monday on which the simulation begins.
    fn first_simulated(self) -> NaiveDate {
        self.first() - Days::new(RUN_IN_WEEKS * 7)
    }

    fn begin(self) -> Minute {
        zone::at(ZONE, self.first_simulated(), FIRST_MINUTE)
    }

    fn opens(self) -> Minute {
        zone::at(ZONE, self.first(), 0)
    }

    fn end(self) -> Minute {
        zone::at(ZONE, self.last(), 24 * 60)
    }

    /// Mondays to Fridays, from so many days before the simulation begins.
    fn workdays_since(self, before: u64) -> impl Iterator<Item = NaiveDate> {
        let days = (self.first_simulated() - Days::new(before))
            .iter_days()
            .take_while(move |day| *day <= self.last());
        days.filter(|day| day.weekday().number_from_monday() < 6)
    }

    /// The week in which a minute lies, from 0; none before the first and after the last.
    fn week_of(self, at: Minute) -> Option<usize> {
        let days = (zone::date(ZONE, at) - self.first()).num_days();
        usize::try_from(days.div_euclid(7)).ok().filter(|week| *week < self.weeks)
    }
}

/// Starts everything, simulates both quarters side by side, stops everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Value> {
    let quarter = Quarter { weeks: options.weeks };
    let told = |waitlist| tokio::spawn(Story::tell(quarter, options.seed, waitlist));
    let (with, without) = tokio::try_join!(told(true), told(false))?;
    let minutes: u16 = SHIFTS.iter().map(|(from, to)| to - from).sum();
    Ok(json!({
        "load_average": processes::load_average()?, "weeks": options.weeks, "seed": options.seed, "providers": PROVIDERS,
        "hours": minutes / 60, "first": quarter.first().to_string(), "last": quarter.last().to_string(),
        "assumptions": demand::assumptions(), "with": with?, "without": without?,
    }))
}

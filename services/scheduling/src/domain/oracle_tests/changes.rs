//! When the clocks of the world change.

use std::ops::Range;

use chrono::NaiveDate;
use chrono_tz::{TZ_VARIANTS, Tz};

use super::oracle::{DAY, ahead, number};
use crate::domain::span::Minute;

/// From the first day of the first to that of the last year.
const YEARS: [i32; 2] = [2024, 2031];
/// No zone changes its clocks and changes them back within so many minutes: Morocco's month without summer time is the shortest.
const PROBE: Minute = 10 * DAY;

/// All minutes of those years.
pub(super) fn minutes() -> Range<Minute> {
    let [from, to] = YEARS.map(|year| number(NaiveDate::from_ymd_opt(year, 1, 1).unwrap()) * DAY);
    from..to
}

/// The first minutes after each change of the zone's clocks.
fn changes(zone: Tz) -> Vec<Minute> {
    let Range { start: from, end: to } = minutes();
    let ahead = |minute| ahead(zone, minute);
    let mut found = vec![];
    for start in (from..to).step_by(PROBE as usize) {
        let (mut before, mut after) = (start, (start + PROBE).min(to));
        if ahead(before) == ahead(after) {
            continue;
        }
        while after - before > 1 {
            let middle = before.midpoint(after);
            if ahead(middle) == ahead(before) { before = middle } else { after = middle }
        }
        found.push(after);
    }
    found
}

/// The zones whose clocks change, each with its changes.
pub(super) fn changing_zones() -> Vec<(Tz, Vec<Minute>)> {
    let all = TZ_VARIANTS.iter().map(|zone| (*zone, changes(*zone)));
    all.filter(|(_, changes)| !changes.is_empty()).collect()
}

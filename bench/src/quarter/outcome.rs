//! What a quarter came to, from the history that appointments keeps: which time was given up before it began, and whether a visit stood
//! there in the end.

use std::collections::{HashMap, HashSet};

use scheduling::domain::span::Minute;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{DAY, HOUR, PROVIDERS, Quarter, SHIFTS};

/// Visits are made of these, in minutes.
const CELL: Minute = 15;
/// Time is told apart by how long before its start it was given up, in minutes: less than each of these, and more than all.
const NOTICES: [Minute; 4] = [4 * HOUR, DAY, 3 * DAY, 7 * DAY];

/// One state of an appointment, as its history has it.
#[derive(Clone, Debug)]
struct Step {
    appointment: Uuid,
    state: String,
    at: Minute,
    provider: Uuid,
    start: Minute,
    end: Minute,
}

/// Minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Given up at least once before they began.
    freed: Minute,
    /// Of those, with a visit in the end.
    refilled: Minute,
    /// With a visit in the end.
    filled: Minute,
}

/// Reads the history, and adds up.
pub(super) async fn figures(db: &mut PgConnection, quarter: &Quarter) -> anyhow::Result<Value> {
    let rows: Vec<(Uuid, String, i64, Uuid, i64, i64)> = sqlx::query_as(
        "select reservation_id, state::text, floor(extract(epoch from changed_at) / 60)::bigint, provider_id,
                (extract(epoch from lower(visit)) / 60)::bigint, (extract(epoch from upper(visit)) / 60)::bigint
         from appointments.change order by reservation_id, version",
    )
    .fetch_all(&mut *db)
    .await?;
    let steps = rows.into_iter().map(|(appointment, state, at, provider, start, end)| Step {
        appointment,
        state,
        at,
        provider,
        start,
        end,
    });
    let (weeks, notices) = tally(&steps.collect::<Vec<_>>(), quarter);
    let offers: Vec<(String, i64)> =
        sqlx::query_as("select state::text, count(*) from appointments.offer group by state order by state")
            .fetch_all(db)
            .await?;
    let open = SHIFTS.iter().map(|(from, to)| Minute::from(to - from)).sum::<Minute>() * PROVIDERS as i64 * 5;
    let shown = |tally: &Tally| json!({ "freed": tally.freed, "refilled": tally.refilled, "filled": tally.filled, "open": open });
    Ok(json!({
        "weeks": weeks.iter().map(shown).collect::<Vec<_>>(),
        "notices": notices.iter().map(shown).collect::<Vec<_>>(),
        "offers": offers.into_iter().collect::<HashMap<_, _>>(),
    }))
}

/// By week, and by how long before its start time was given up for the last time.
fn tally(steps: &[Step], quarter: &Quarter) -> (Vec<Tally>, Vec<Tally>) {
    let cells = |step: &Step| {
        let provider = step.provider;
        (step.start..step.end).step_by(CELL as usize).map(move |start| (provider, start))
    };
    let mut freed: HashMap<(Uuid, Minute), Minute> = HashMap::new();
    let mut standing = HashSet::new();
    for (n, step) in steps.iter().enumerate() {
        let next = steps.get(n + 1).filter(|next| next.appointment == step.appointment);
        let Some(next) = next else {
            if ["booked", "checked_in", "completed", "no_show"].contains(&step.state.as_str()) {
                standing.extend(cells(step));
            }
            continue;
        };
        let elsewhere = (next.provider, next.start) != (step.provider, step.start);
        if step.state == "booked" && (next.state == "cancelled" || elsewhere) && next.at < step.start {
            for cell in cells(step) {
                let notice = cell.1 - next.at;
                freed.entry(cell).and_modify(|last| *last = notice.min(*last)).or_insert(notice);
            }
        }
    }
    let mut weeks = vec![Tally::default(); quarter.weeks];
    let mut notices = vec![Tally::default(); NOTICES.len() + 1];
    for (cell, notice) in &freed {
        let Some(week) = quarter.week_of(cell.1) else { continue };
        let kind = NOTICES.iter().take_while(|bound| **bound <= *notice).count();
        for tally in [&mut weeks[week], &mut notices[kind]] {
            tally.freed += CELL;
            tally.refilled += if standing.contains(cell) { CELL } else { 0 };
        }
    }
    for cell in &standing {
        if let Some(week) = quarter.week_of(cell.1) {
            weeks[week].filled += CELL;
        }
    }
    (weeks, notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(appointment: u128, state: &str, at: Minute, start: Minute, end: Minute) -> Step {
        let provider = Uuid::nil();
        Step { appointment: Uuid::from_u128(appointment), state: state.to_owned(), at, provider, start, end }
    }

    #[test]
    fn time_given_up_counts_once_and_as_refilled_when_a_visit_stood_there_in_the_end() {
        let quarter = Quarter { weeks: 1 };
        let nine = quarter.opens() + 9 * HOUR;
        let (then, late) = (nine - 2 * HOUR, nine - HOUR);
        let steps = [
            // Half of this half hour finds someone, who cancels, and then someone who comes.
            step(1, "booked", then, nine, nine + 30),
            step(1, "cancelled", then + 1, nine, nine + 30),
            step(2, "offered", then + 2, nine, nine + 15),
            step(2, "booked", then + 3, nine, nine + 15),
            step(2, "cancelled", then + 4, nine, nine + 15),
            step(3, "booked", late, nine, nine + 15),
            step(3, "no_show", nine + 5, nine, nine + 15),
            // Moved away, and nobody takes it.
            step(4, "booked", then, nine + 60, nine + 75),
            step(4, "booked", late, nine + 90, nine + 105),
            // Given up when it had begun: that is not freed.
            step(5, "booked", then, nine + 120, nine + 135),
            step(5, "cancelled", nine + 121, nine + 120, nine + 135),
        ];
        let (weeks, notices) = tally(&steps, &quarter);
        assert_eq!(weeks, [Tally { freed: 45, refilled: 15, filled: 30 }]);
        assert_eq!(notices.iter().map(|tally| tally.freed).sum::<Minute>(), 45);
        assert_eq!(notices[0], Tally { freed: 45, refilled: 15, filled: 0 });
    }
}

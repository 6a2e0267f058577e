//! What must hold of the tables whatever happened, read and computed without the model and without the code under test.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::commands::At;

/// How long a hold may keep its time.
const HOLD: TimeDelta = TimeDelta::minutes(5);

#[derive(FromRow)]
struct Row {
    id: Uuid,
    version: i64,
    state: String,
    patient_id: Uuid,
    provider_id: Uuid,
    room_id: Uuid,
    start: At,
    end: At,
    occupied_start: At,
    occupied_end: At,
    visit_date: NaiveDate,
    hold_expires_at: Option<At>,
}

#[derive(FromRow)]
struct Change {
    reservation_id: Uuid,
    version: i64,
    state: String,
    changed_at: At,
    start: At,
    provider_id: Uuid,
    room_id: Uuid,
}

impl Row {
    fn occupies(&self) -> bool {
        ["held", "offered", "booked", "displaced", "checked_in"].contains(&self.state.as_str())
    }
}

/// The first rule that is broken, in words.
pub(crate) async fn check(conn: &mut PgConnection) -> Result<(), String> {
    let rows: Vec<Row> = sqlx::query_as(
        r#"select id, version, state::text, patient_id, provider_id, room_id, lower(visit) as start, upper(visit) as "end",
                  lower(occupied) as occupied_start, upper(occupied) as occupied_end, visit_date, hold_expires_at
           from reservation"#,
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let changes: Vec<Change> = sqlx::query_as(
        "select reservation_id, version, state::text, changed_at, lower(visit) as start, provider_id, room_id
         from change order by reservation_id, version",
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let told: Vec<(Uuid, i64, String)> =
        sqlx::query_as("select aggregate_id, aggregate_version, subject from outbox order by position")
            .fetch_all(&mut *conn)
            .await
            .unwrap();
    overlaps(&rows)?;
    let mut histories: BTreeMap<Uuid, Vec<Change>> = BTreeMap::new();
    for change in changes {
        histories.entry(change.reservation_id).or_default().push(change);
    }
    let mut events: BTreeMap<Uuid, Vec<(i64, String)>> = BTreeMap::new();
    for (id, version, subject) in told {
        let kind = subject.rsplit('.').next().unwrap_or_default().to_owned();
        events.entry(id).or_default().push((version, kind));
    }
    for row in &rows {
        let history = histories.remove(&row.id).unwrap_or_default();
        let events = events.remove(&row.id).unwrap_or_default();
        story(row, &history, &events).map_err(|broken| format!("of {}: {broken}", row.id))?;
    }
    match histories.keys().chain(events.keys()).next() {
        Some(id) => Err(format!("there is a history or an event of {id}, which is no appointment")),
        None => Ok(()),
    }
}

/// Holds that should have ended by `now`, and open authorizations that nobody will ask about: there must be none.
pub(crate) async fn forgotten(conn: &mut PgConnection, now: At) -> Vec<Uuid> {
    sqlx::query_scalar(
        "select id from reservation
         where state = 'held' and (hold_expires_at <= $1 or (driven_until is not null and copay <> 'action_required'))",
    )
    .bind(now)
    .fetch_all(conn)
    .await
    .unwrap()
}

/// Nobody and nothing is in two visits at once.
fn overlaps(rows: &[Row]) -> Result<(), String> {
    let live: Vec<_> = rows.iter().filter(|row| row.occupies()).collect();
    let meet = |a: (At, At), b: (At, At)| a.0 < b.1 && b.0 < a.1;
    for (i, a) in live.iter().enumerate() {
        for b in &live[i + 1..] {
            let visits = meet((a.start, a.end), (b.start, b.end));
            let occupied = meet((a.occupied_start, a.occupied_end), (b.occupied_start, b.occupied_end));
            let (provider, patient) = (a.provider_id == b.provider_id, a.patient_id == b.patient_id);
            let days = (a.visit_date - b.visit_date).num_days().abs();
            let broken = [
                ("provider", provider && occupied),
                ("room", a.room_id == b.room_id && visits),
                ("patient", patient && visits),
                ("7-day rule", patient && provider && days < 7),
                ("one open hold", patient && a.state == "held" && b.state == "held"),
            ];
            if let Some((rule, _)) = broken.iter().find(|(_, broken)| *broken) {
                return Err(format!("{} and {} break the {rule}", a.id, b.id));
            }
        }
    }
    Ok(())
}

/// Versions have no gap, each step is one of the contract's and told by one event of its kind, and the last one is the row.
fn story(row: &Row, history: &[Change], events: &[(i64, String)]) -> Result<(), String> {
    let versions: Vec<_> = history.iter().map(|change| change.version).collect();
    if versions != (1..=row.version).collect::<Vec<_>>() {
        return Err(format!("version {} has the history {versions:?}", row.version));
    }
    let mut expected = vec![];
    let mut before = "";
    for change in history {
        let kind = told_by(before, &change.state)
            .ok_or_else(|| format!("'{before}' must not become '{}'", change.state))?;
        expected.push((change.version, kind.to_owned()));
        let in_time = change.changed_at < history[0].changed_at + HOLD;
        if (before, change.state.as_str()) == ("held", "booked") && !in_time {
            return Err("it was booked when its hold was over".into());
        }
        before = &change.state;
    }
    if events != expected {
        return Err(format!("it told {events:?}, not {expected:?}"));
    }
    let last = &history[history.len() - 1];
    let place = (&last.state, last.start, last.provider_id, last.room_id);
    if place != (&row.state, row.start, row.provider_id, row.room_id) {
        return Err("its row is not what its history says".into());
    }
    let expiring = BTreeSet::from(["held", "offered"]).contains(row.state.as_str());
    if expiring == row.hold_expires_at.is_some() {
        Ok(())
    } else {
        Err("only a hold may end by itself".into())
    }
}

/// The event that tells a step of the contract's diagram; `None` = there is no such step.
fn told_by(from: &str, to: &str) -> Option<&'static str> {
    match (from, to) {
        ("", "held") => Some("SlotHeld"),
        ("" | "held", "booked") => Some("AppointmentBooked"),
        ("held", "expired" | "released" | "declined") => Some("SlotReleased"),
        ("booked" | "displaced", "booked") => Some("AppointmentRescheduled"),
        ("booked", "displaced") => Some("AppointmentDisplaced"),
        ("booked" | "displaced", "cancelled") => Some("AppointmentCancelled"),
        ("booked" | "displaced", "no_show") | ("checked_in", "completed") => Some("VisitCompleted"),
        ("booked" | "displaced" | "no_show", "checked_in") => Some("PatientCheckedIn"),
        _ => None,
    }
}

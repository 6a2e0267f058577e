//! Nobody and nothing is in two visits at once, at any moment of the run. Each version of an appointment is a stay: from its commit
//! to the next one's it took its provider, its room and its patient. A rival's row commits only after the row that stood in its way
//! has let go and committed, so two stays of one place that overlap in both times were visible together, however shortly.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::{Findings, Rule};
use crate::facts::{Place, Rows, Span, State};

/// Days from one visit with a provider to the next.
const APART: i64 = 7;

/// An appointment as it stood for a while.
#[derive(Clone, Debug)]
pub struct Stay {
    /// Which appointment.
    pub id: Uuid,
    /// Which version of it.
    pub version: i64,
    /// Its state then.
    pub state: State,
    /// Whose.
    pub patient: Uuid,
    /// Where and when.
    pub place: Place,
    /// The visit with its buffers.
    pub occupied: Span,
    /// The day of the start at the clinic, worked out here.
    pub date: NaiveDate,
    /// When it became visible.
    pub from: DateTime<Utc>,
    /// When the next version did; `None` = it stands.
    pub until: Option<DateTime<Utc>>,
}

impl Stay {
    /// Whether it stood at some moment of `from` to `until`.
    pub fn stood(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> bool {
        self.from <= until && self.until.is_none_or(|end| end >= from)
    }

    /// Whether the patient's own rules count it.
    pub fn is_the_patients(&self) -> bool {
        self.state.occupies() && self.state != State::Offered
    }

    fn named(&self) -> String {
        format!(
            "{} version {} ({:?}, provider {}, room {}, patient {}, {} to {}, visible {} to {})",
            self.id,
            self.version,
            self.state,
            self.place.provider,
            self.place.room,
            self.patient,
            self.place.visit.start.format("%FT%H:%M"),
            self.place.visit.end.format("%H:%M"),
            self.from.format("%H:%M:%S%.6f"),
            self.until.map_or("now".to_owned(), |t| t.format("%H:%M:%S%.6f").to_string()),
        )
    }
}

/// Every version of every appointment, by appointment and version.
pub fn stays(rows: &Rows) -> Vec<Stay> {
    let mut stays: Vec<Stay> = Vec::with_capacity(rows.changes.len());
    for change in rows.changes.values() {
        let Some(row) = rows.reservations.get(&change.reservation) else { continue };
        if let Some(before) = stays.last_mut().filter(|stay| stay.id == change.reservation) {
            before.until = Some(change.committed);
        }
        // The buffers of a kind of visit are the same in every version.
        let visit = change.place.visit;
        let occupied = Span {
            start: visit.start - (row.place.visit.start - row.occupied.start),
            end: visit.end + (row.occupied.end - row.place.visit.end),
        };
        stays.push(Stay {
            id: change.reservation,
            version: change.version,
            state: change.state,
            patient: row.patient,
            place: change.place,
            occupied,
            date: local_date(rows, change.place),
            from: change.committed,
            until: None,
        });
    }
    stays
}

fn local_date(rows: &Rows, place: Place) -> NaiveDate {
    let zone = rows.zones.get(&place.clinic).copied().unwrap_or(chrono_tz::UTC);
    place.visit.start.with_timezone(&zone).date_naive()
}

/// Stays that stand at the moment the sweep is at, by whom or what they take.
#[derive(Default)]
struct Standing<'a>(HashMap<Uuid, Vec<&'a Stay>>);

impl<'a> Standing<'a> {
    /// Those of other appointments.
    fn rivals(&self, key: Uuid, stay: &'a Stay) -> impl Iterator<Item = &'a Stay> {
        self.0.get(&key).into_iter().flatten().copied().filter(|other| other.id != stay.id)
    }

    fn add(&mut self, key: Uuid, stay: &'a Stay) {
        self.0.entry(key).or_default().push(stay);
    }

    fn remove(&mut self, key: Uuid, stay: &Stay) {
        if let Some(list) = self.0.get_mut(&key) {
            list.retain(|other| (other.id, other.version) != (stay.id, stay.version));
        }
    }
}

pub(super) fn check(found: &mut Findings, rows: &Rows, stays: &[Stay]) {
    for row in rows.reservations.values() {
        let date = local_date(rows, row.place);
        found.must(row.visit_date == date, Rule::VisitDate, || {
            format!("{} says {}, and its start is on {date} at the clinic", row.id, row.visit_date)
        });
    }
    // Ends before beginnings: a stay ends with the very commit that begins the next.
    let mut moments: Vec<(DateTime<Utc>, bool, &Stay)> = Vec::new();
    for stay in stays.iter().filter(|stay| stay.state.occupies()) {
        moments.push((stay.from, true, stay));
        moments.extend(stay.until.map(|until| (until, false, stay)));
    }
    moments.sort_by_key(|(at, begins, stay)| (*at, *begins, stay.id, stay.version));
    let (mut providers, mut rooms, mut patients) =
        (Standing::default(), Standing::default(), Standing::default());
    for (_, begins, stay) in moments {
        if !begins {
            providers.remove(stay.place.provider, stay);
            rooms.remove(stay.place.room, stay);
            patients.remove(stay.patient, stay);
            continue;
        }
        let mut clash = |rule, other: &Stay| {
            found.add(rule, format!("{} and {}", other.named(), stay.named()));
        };
        for other in providers.rivals(stay.place.provider, stay) {
            if other.occupied.overlaps(stay.occupied) {
                clash(Rule::ProviderOverlap, other);
            }
        }
        for other in rooms.rivals(stay.place.room, stay) {
            if other.place.visit.overlaps(stay.place.visit) {
                clash(Rule::RoomOverlap, other);
            }
        }
        if stay.is_the_patients() {
            for other in patients.rivals(stay.patient, stay) {
                if other.place.visit.overlaps(stay.place.visit) {
                    clash(Rule::PatientOverlap, other);
                }
                if other.place.provider == stay.place.provider
                    && (other.date - stay.date).num_days().abs() < APART
                {
                    clash(Rule::SevenDays, other);
                }
                if (other.state, stay.state) == (State::Held, State::Held) {
                    clash(Rule::TwoHolds, other);
                }
            }
            patients.add(stay.patient, stay);
        }
        providers.add(stay.place.provider, stay);
        rooms.add(stay.place.room, stay);
    }
}

//! Freed time finds who waits for it.
//!
//! Whatever frees time leaves a note of it in its own transaction; a worker of any replica takes the notes up, chooses who gets what,
//! asks scheduling about the places it chose, and makes the offers. A note goes when its time is taken or nobody may want it, so that a
//! worker that dies on the way has forgotten nothing: another takes the note up once its claim has passed, and finds what is done done.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, NaiveDate, SubsecRound as _, TimeDelta, Timelike as _, Utc};
use chrono_tz::Tz;
use futures::StreamExt as _;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, ClinicId, PatientId, ServiceTypeId, WaitlistEntryId};
use kit::status::Error as KitError;
use proto::clinic::scheduling::v1::{BlockCode, CheckSlotRequest};
use sqlx::PgConnection;
use tonic::Code;

use super::App;
use super::book::{CALENDAR_PAUSE, Judged, Slot, judged};
use super::keep::{Made, Proposal};
use crate::domain::Span;
use crate::domain::matching::{Wish, fill};
use crate::domain::waitlist::{LEAST_NOTICE, Length, next_offer_time};
use crate::error::Error;
use crate::store;
use crate::store::{Candidate, Freed, Stretch};

/// Notes, or offers, that one look takes.
pub(super) const BATCH: i64 = 50;
/// Notes that are looked at side by side.
const AT_A_TIME: usize = 4;
/// Entries of each kind of visit that are considered for a stretch: more than fit into any.
const CANDIDATES: i64 = 100;
/// So many times more are, when none of a kind wants any of it.
const DEEPER: i64 = 10;
/// Visits start, and stretches are filled, on this grid.
const GRID: TimeDelta = TimeDelta::minutes(5);
/// Choices that a worker tries before it says anew that it is at the note: each rules a place out or takes one, so they come to an end.
const ROUNDS: usize = 64;
/// How often it does: more rounds than a day of short visits of many kinds takes.
const RENEWALS: usize = 64;
/// Pause before a note is taken up again that could not be settled.
pub(super) const AGAIN: TimeDelta = TimeDelta::milliseconds(500);
/// Time that is free, and that nobody can be offered now, is looked at again after so long: a patient's own hold ends, a room is left, a
/// day with enough offers is over.
const LOOK_AGAIN: TimeDelta = TimeDelta::minutes(15);
/// A replica of scheduling knows of a change after so long at most.
pub(super) const FOLLOWED_WITHIN: TimeDelta = TimeDelta::seconds(10);

/// What scheduling said of places in a stretch, while one note is looked at.
#[derive(Default)]
pub(super) struct Known {
    /// By kind of visit and start; `None` = it says no, or there is no room.
    places: HashMap<(ServiceTypeId, DateTime<Utc>), Option<Judged>>,
    /// Kinds that the provider never has there.
    hopeless: HashSet<ServiceTypeId>,
    /// Entries that turned out not to want anything now.
    skipped: HashSet<WaitlistEntryId>,
}

/// How a round ended.
enum Round {
    /// Something was learnt or done: choose again.
    Again,
    /// Nobody is left to offer anything to; but someone who has another offer to answer would fit, who is free again then.
    Engaged(DateTime<Utc>),
    /// Nobody is left; some of the time is free.
    Left,
    /// Nothing of the time is free.
    Taken,
}

impl App {
    /// Matches what is due, answers offers that book by themselves, and closes entries that are over.
    pub(super) async fn look_at_waitlist(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let due = store::claim_freed(&mut conn, true, BATCH).await?;
        drop(conn);
        let more = due.len() as i64 == BATCH;
        futures::stream::iter(due)
            .for_each_concurrent(AT_A_TIME, async |freed| {
                let id = freed.id;
                if let Err(error) = self.refill(freed).await {
                    let cause = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(id, cause, "freed time could not be offered this time");
                }
            })
            .await;
        if more {
            self.freed.notify_one();
        }
        self.accept_by_themselves().await?;
        self.close_entries().await
    }

    async fn accept_by_themselves(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let unanswered = store::unanswered(&mut conn, BATCH).await?;
        drop(conn);
        for id in unanswered {
            let app = self.clone();
            tokio::spawn(async move {
                if let Err(error) = app.accept_by_itself(id).await {
                    let cause = format!("{:#}", anyhow::Error::from(error));
                    tracing::info!(%id, cause, "an offer that books by itself came to nothing this time");
                }
            });
        }
        Ok(())
    }

    async fn refill(&self, mut freed: Freed) -> Result<(), Error> {
        if freed.free.end <= freed.free.start {
            return self.done(&freed).await;
        }
        let Some((clinic, zone)) = freed.place.clone() else { return self.done(&freed).await };
        let zone: Tz = zone.parse().map_err(|e| KitError::internal(anyhow::anyhow!("{e}")))?;
        let due = next_offer_time(freed.now, zone);
        if due > freed.now {
            return self.later(&freed, due).await;
        }
        let mut known = Known::default();
        for _ in 0..RENEWALS {
            for _ in 0..ROUNDS {
                match self.round(&freed, clinic, zone, &mut known).await? {
                    Round::Again => {}
                    Round::Taken => return self.done(&freed).await,
                    Round::Engaged(ends) => {
                        let mut conn = self.db.pool().acquire().await?;
                        return Ok(store::freed_until_answered(&mut conn, &freed, ends).await?);
                    }
                    Round::Left => return self.leave_for_later(&freed, clinic, zone, &known).await,
                }
            }
            let mut conn = self.db.pool().acquire().await?;
            if !store::keep_freed(&mut conn, &mut freed).await? {
                return Ok(());
            }
        }
        self.later(&freed, freed.now + AGAIN).await
    }

    /// Keeps a note of time that nobody can be offered now, unless nobody may want it later either.
    async fn leave_for_later(
        &self,
        freed: &Freed,
        clinic: ClinicId,
        zone: Tz,
        known: &Known,
    ) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        if !store::is_wanted(&mut conn, freed, clinic, local_day(freed.free.start, zone)).await? {
            store::freed_done(&mut conn, freed).await?;
            return Ok(());
        }
        // Who was passed over is not asked elsewhere any more, or goes on under another id.
        let due = freed.now + if known.skipped.is_empty() { LOOK_AGAIN } else { AGAIN };
        Ok(store::freed_later(&mut conn, freed, due).await?)
    }

    /// One choice: who gets what of what is free now.
    async fn round(
        &self,
        freed: &Freed,
        clinic: ClinicId,
        zone: Tz,
        known: &mut Known,
    ) -> Result<Round, Error> {
        let earliest = freed.now + LEAST_NOTICE;
        let mut conn = self.db.pool().acquire().await?;
        let longest = TimeDelta::minutes(store::longest_wanted(&mut conn).await?.into());
        let wide = Span { start: freed.free.start - longest, end: freed.free.end + longest };
        let taken = store::taken_within(&mut conn, freed.provider, wide).await?;
        // What was freed beside it is filled with it.
        let mut beside = store::freed_within(&mut conn, freed.provider, clinic, wide).await?;
        beside.push(freed.free);
        let (mut engaged_until, mut left): (Option<DateTime<Utc>>, bool) = (None, false);
        for gap in gaps(wide, &taken, freed.free) {
            left |= earliest < gap.end;
            let stretch = Stretch {
                provider: freed.provider,
                clinic,
                free: gap,
                days: (local_day(gap.start, zone), local_day(gap.end - GRID, zone)),
                minutes: (local_minute(gap.start, zone), local_minute(gap.end - GRID, zone) + 1),
            };
            let starts = |candidate: &Candidate| {
                starts_of(candidate, gap, &beside, earliest, zone, known).collect::<Vec<u32>>()
            };
            let not_skipped = |candidate: &Candidate| match known.skipped.contains(&candidate.entry.id) {
                true => vec![],
                false => starts(candidate),
            };
            let free = suitors(&mut conn, stretch, false, not_skipped).await?;
            let wishes: Vec<_> =
                free.iter().map(|(candidate, starts)| wish(candidate, starts.clone())).collect();
            let placements = fill(grid(gap.end - gap.start), &wishes);
            if placements.is_empty() {
                let engaged = suitors(&mut conn, stretch, true, starts).await?;
                let waits = engaged.iter().filter_map(|(candidate, _)| candidate.engaged_until);
                engaged_until = engaged_until.into_iter().chain(waits).min();
                continue;
            }
            drop(conn);
            let places: Vec<_> = placements
                .iter()
                .map(|placement| (&free[placement.wish].0, gap.start + GRID * placement.start as i32))
                .collect();
            self.try_choice(freed, clinic, &places, known).await?;
            return Ok(Round::Again);
        }
        Ok(match engaged_until {
            Some(ends) => Round::Engaged(ends),
            None if left => Round::Left,
            None => Round::Taken,
        })
    }

    /// Offers a choice if scheduling allows all of it; else notes what it does not.
    async fn try_choice(
        &self,
        freed: &Freed,
        clinic: ClinicId,
        places: &[(&Candidate, DateTime<Utc>)],
        known: &mut Known,
    ) -> Result<(), Error> {
        let mut allowed = true;
        for (candidate, start) in places {
            let kind = candidate.entry.service_type_id;
            if !known.places.contains_key(&(kind, *start)) {
                let slot = Slot {
                    patient: None,
                    service_type: kind,
                    clinic,
                    provider: Some(freed.provider),
                    room: None,
                    start: *start,
                    override_reason: String::new(),
                };
                let judged = self.ask(&slot, known).await?;
                if let Some(judged) = &judged {
                    let length = Length::of(judged.new.visit, judged.new.occupied);
                    if length != candidate.length {
                        let mut conn = self.db.pool().acquire().await?;
                        store::note_length(&mut conn, kind, length, None).await?;
                        allowed = false;
                    }
                }
                known.places.insert((kind, *start), judged);
            }
            allowed &= known.places.get(&(kind, *start)).is_some_and(Option::is_some);
        }
        if !allowed {
            return Ok(());
        }
        for (candidate, start) in places {
            let kind = candidate.entry.service_type_id;
            let Some(Some(judged)) = known.places.get(&(kind, *start)) else { continue };
            let entry = &candidate.entry;
            let proposal = Proposal {
                patient: entry.patient_id,
                entry: Some(entry.id),
                replaces: entry.replaces_id,
                preference: None,
                auto_book: entry.auto_book,
                payment_method: entry.payment_method_id,
            };
            match self.keep(&proposal, judged).await? {
                Made::Yes | Made::Taken => {}
                Made::NoRoom => {
                    known.places.insert((kind, *start), None);
                }
                Made::NotTheirs => {
                    known.skipped.insert(entry.id);
                }
                Made::Stale => {
                    known.places.remove(&(kind, *start));
                    tokio::time::sleep(CALENDAR_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    /// What scheduling says of a place; `None` = no.
    pub(super) async fn ask(&self, slot: &Slot, known: &mut Known) -> Result<Option<Judged>, Error> {
        let request = CheckSlotRequest {
            service_type_id: slot.service_type.to_string(),
            clinic_id: slot.clinic.to_string(),
            provider_id: slot.provider.map(|p| p.to_string()).unwrap_or_default(),
            start_time: Some(timestamp(slot.start)),
            ..Default::default()
        };
        let answer = match self.scheduling.check_slot(request).await {
            Ok(answer) => answer,
            // It does not know the provider or the kind of visit any more.
            Err(error) if is_refused(&error) => {
                known.hopeless.insert(slot.service_type);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let never = [BlockCode::ServiceNotOffered, BlockCode::Retired, BlockCode::NoSuitableRoom];
        if answer.blocks.iter().any(|block| never.contains(&block.code())) {
            known.hopeless.insert(slot.service_type);
        }
        if !answer.ok {
            return Ok(None);
        }
        // Whose it will be is said when it is offered.
        let nobody = PatientId::from(uuid::Uuid::nil());
        Ok(Some(judged(slot, nobody, AppointmentId::new(), answer)?))
    }

    pub(super) async fn done(&self, freed: &Freed) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        store::freed_done(&mut conn, freed).await?;
        Ok(())
    }

    pub(super) async fn later(&self, freed: &Freed, due: DateTime<Utc>) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        Ok(store::freed_later(&mut conn, freed, due).await?)
    }
}

/// Whether scheduling has answered, and not for want of time.
pub(super) fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Remote(status) if status.code() != Code::DeadlineExceeded)
}

/// Who wants some of a stretch, and from where on, in the order in which they are served. Of each kind of visit the first ones are looked
/// at; further down it is looked for as long as none of a kind wants any of it, for whoever is there must not lose it to them.
async fn suitors(
    conn: &mut PgConnection,
    stretch: Stretch,
    engaged: bool,
    starts: impl Fn(&Candidate) -> Vec<u32>,
) -> sqlx::Result<Vec<(Candidate, Vec<u32>)>> {
    let mut most = CANDIDATES;
    loop {
        let candidates = store::candidates(conn, stretch, engaged, most).await?;
        let mut read: HashMap<ServiceTypeId, i64> = HashMap::new();
        for candidate in &candidates {
            *read.entry(candidate.entry.service_type_id).or_default() += 1;
        }
        let mut suitors: Vec<_> =
            candidates.into_iter().map(|c| (starts(&c), c)).map(|(s, c)| (c, s)).collect();
        suitors.retain(|(_, starts)| !starts.is_empty());
        let wanted: HashSet<_> = suitors.iter().map(|(c, _)| c.entry.service_type_id).collect();
        if read.iter().all(|(kind, read)| wanted.contains(kind) || *read < most) {
            return Ok(suitors);
        }
        most *= DEEPER;
    }
}

/// The parts of `wide` that nobody has and that share time with `freed`, on the grid. `taken` is in the order of starts.
fn gaps(wide: Span, taken: &[Span], freed: Span) -> Vec<Span> {
    let mut gaps = vec![];
    let mut from = wide.start;
    let nothing_more = Span { start: wide.end, end: wide.end };
    for span in taken.iter().chain([&nothing_more]) {
        let gap = Span { start: on_grid(from + GRID - TimeDelta::seconds(1)), end: on_grid(span.start) };
        if gap.start < gap.end && gap.start < freed.end && freed.start < gap.end {
            gaps.push(gap);
        }
        from = from.max(span.end);
    }
    gaps
}

/// The instant of the grid at or before this one.
fn on_grid(at: DateTime<Utc>) -> DateTime<Utc> {
    let over = at.timestamp().rem_euclid(GRID.num_seconds());
    at.trunc_subsecs(0) - TimeDelta::seconds(over)
}

/// Steps of the grid.
fn grid(length: TimeDelta) -> u32 {
    u32::try_from(length.num_seconds() / GRID.num_seconds()).unwrap_or(0)
}

fn local_day(at: DateTime<Utc>, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// Minutes after the local midnight.
fn local_minute(at: DateTime<Utc>, zone: Tz) -> i16 {
    let local = at.with_timezone(&zone);
    (local.hour() * 60 + local.minute()) as i16
}

fn wish(candidate: &Candidate, starts: Vec<u32>) -> Wish {
    let steps = |minutes: i32| grid(TimeDelta::minutes(minutes.into()));
    let Length { before, visit, after } = candidate.length;
    Wish {
        patient: candidate.entry.patient_id,
        before: steps(before),
        visit: steps(visit),
        after: steps(after),
        starts,
    }
}

/// Where in a gap an entry's visit may start, counted on the grid: so that it takes of time that became free, and as far as the entry
/// and its patient's own visits allow.
fn starts_of<'a>(
    candidate: &'a Candidate,
    gap: Span,
    freed: &'a [Span],
    earliest: DateTime<Utc>,
    zone: Tz,
    known: &'a Known,
) -> impl Iterator<Item = u32> + 'a {
    let entry = &candidate.entry;
    let [before, visit, after] = [candidate.length.before, candidate.length.visit, candidate.length.after]
        .map(|m| TimeDelta::minutes(m.into()));
    let hopeless = known.hopeless.contains(&entry.service_type_id);
    (0..grid(gap.end - gap.start)).filter(move |step| {
        let start = gap.start + GRID * *step as i32;
        let (from, until) = (start - before, start + visit + after);
        let refused = || matches!(known.places.get(&(entry.service_type_id, start)), Some(None));
        !hopeless
            && gap.start <= from
            && until <= gap.end
            && freed.iter().any(|freed| from < freed.end && freed.start < until)
            && earliest <= start
            && candidate.before.is_none_or(|before| start < before)
            && is_on_step(start, candidate.step, zone)
            && entry.suits(start, zone)
            && !candidate.offered.contains(&start)
            && candidate.busy.iter().all(|busy| start + visit <= busy.start || busy.end <= start)
            && !refused()
    })
}

/// Whether visits with this step start at `start`, by the clinic's wall clock.
fn is_on_step(start: DateTime<Utc>, step: i32, zone: Tz) -> bool {
    i32::from(local_minute(start, zone)) % step.max(1) == 0
}

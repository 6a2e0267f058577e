//! Places that a displaced visit could move to: the three nearest are held until its patient takes one, turns them down or lets a day
//! pass; whatever else becomes of the visit gives them back. When none is held any more, the front desk has it on its work list.
//!
//! They are held before the visit is displaced, each in a transaction of its own, so that visits displaced by one change take the next
//! place where they meet, and neither waits for the other. What a crash leaves held is taken up by the next judgement of the visit, or
//! given back.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use kit::fields::{date, timestamp};
use kit::ids::{AppointmentId, ClinicId, OfferId, PatientId, ProviderId};
use kit::merges;
use proto::clinic::appointments::v1::SlotOption;
use proto::clinic::scheduling::v1::AvailabilityQuery;
use sqlx::PgConnection;

use super::App;
use super::book::{CALENDAR_PAUSE, JUDGEMENTS, Judged, Slot};
use super::keep::{Made, Proposal};
use super::offers::close;
use super::refill::{BATCH, Known};
use crate::domain::waitlist::{ALTERNATIVES, OfferState};
use crate::domain::{Conflict, DRIVE_LEASE, NewReservation, Reservation, State};
use crate::error::Error;
use crate::store::By;
use crate::{store, wire};

/// Days before and after a displaced visit in which places are looked for: at first near it, for one page of a search may not reach
/// from the first of many days to the visit's own.
const DAYS: [(i64, i64); 2] = [(1, 1), (3, 14)];
/// Places that are tried for one visit: more than the visits judged beside it can take away.
const TRIED: usize = 60;
/// Places that one question to the database is about.
const ASKED: usize = 20;
/// Judging a visit and displacing it take this many leases at most; places held before and for nothing are given back.
const LEASES: f64 = 4.0;

/// A free place near a displaced visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    provider: ProviderId,
    clinic: ClinicId,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl App {
    /// Holds the places nearest to a visit that is about to be displaced. What cannot be found out leaves its patient with fewer.
    pub(super) async fn hold_alternatives(&self, visit: &Reservation) {
        if let Err(error) = self.try_hold(visit).await {
            let cause = format!("{:#}", anyhow::Error::from(error));
            tracing::info!(id = %visit.id, cause, "fewer places than wanted are held instead of a displaced visit");
        }
    }

    async fn try_hold(&self, visit: &Reservation) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let mut held = store::alternatives(&mut conn, visit.id).await?.len();
        let patient = merges::survivor(&mut conn, visit.patient_id).await?;
        drop(conn);
        let mut tried = HashSet::new();
        for days in DAYS {
            if held >= ALTERNATIVES {
                break;
            }
            let mut places = self.places_near(visit, days).await;
            places.retain(|place| !tried.contains(place));
            for _ in 0..TRIED {
                if held >= ALTERNATIVES {
                    break;
                }
                // Asked again each time: visits that are displaced beside it look for the same places.
                let Some(next) = self.first_free(&places).await? else { break };
                let Some(place) = places.drain(..=next).next_back() else { break };
                tried.insert(place);
                held += usize::from(self.hold_place(visit, patient, place, held + 1).await?);
            }
        }
        Ok(())
    }

    /// Holds a place, if the schedule, the rivals and the patient's other visits allow.
    async fn hold_place(
        &self,
        visit: &Reservation,
        patient: PatientId,
        place: Place,
        preference: usize,
    ) -> Result<bool, Error> {
        let slot = Slot {
            patient: Some(patient),
            service_type: visit.service_type_id,
            clinic: place.clinic,
            provider: Some(place.provider),
            room: None,
            start: place.start,
            override_reason: String::new(),
        };
        let proposal = Proposal {
            patient,
            entry: None,
            replaces: Some(visit.id),
            preference: i16::try_from(preference).ok(),
            auto_book: false,
            payment_method: None,
        };
        for judgement in 0..JUDGEMENTS {
            if judgement > 0 {
                tokio::time::sleep(CALENDAR_PAUSE).await;
            }
            let Some(judged) = self.ask(&slot, &mut Known::default()).await? else { return Ok(false) };
            if !self.suits_patient(visit, patient, &judged).await? {
                return Ok(false);
            }
            match self.keep(&proposal, &judged).await? {
                Made::Yes => return Ok(true),
                Made::Taken | Made::NoRoom | Made::NotTheirs => return Ok(false),
                Made::Stale => {}
            }
        }
        Ok(false)
    }

    /// Whether the visit could move there as far as its patient's other visits go.
    async fn suits_patient(
        &self,
        visit: &Reservation,
        patient: PatientId,
        judged: &Judged,
    ) -> Result<bool, Error> {
        let Some(&(provider, _)) = judged.providers.first() else { return Ok(false) };
        let moved =
            NewReservation { id: visit.id, state: State::Booked, patient_id: patient, ..judged.new.clone() };
        let mut conn = self.db.pool().acquire().await?;
        let clashes = store::conflicts(&mut conn, &moved, provider, &[]).await?;
        Ok(!clashes.iter().any(|clash| Conflict::is_own_rule(clash.rule.reason())))
    }

    /// Places of its kind at its clinic that a search finds free, nearest first.
    async fn places_near(&self, visit: &Reservation, (before, after): (i64, i64)) -> Vec<Place> {
        let query = AvailabilityQuery {
            service_type_id: visit.service_type_id.to_string(),
            clinic_ids: vec![visit.clinic_id.to_string()],
            first_date: Some(date(visit.visit_date - TimeDelta::days(before))),
            last_date: Some(date(visit.visit_date + TimeDelta::days(after))),
            any_provider: true,
            ..Default::default()
        };
        self.nearest(query, visit.start, Some(visit.provider_id)).await.iter().filter_map(place_of).collect()
    }

    /// The first of these places that nobody has taken meanwhile, by its place in the list.
    async fn first_free(&self, places: &[Place]) -> Result<Option<usize>, Error> {
        let mut conn = self.db.pool().acquire().await?;
        for (chunk, asked) in places.chunks(ASKED).enumerate() {
            let providers: Vec<_> = asked.iter().map(|place| place.provider.uuid()).collect();
            let starts: Vec<_> = asked.iter().map(|place| place.start).collect();
            let ends: Vec<_> = asked.iter().map(|place| place.end).collect();
            let first = store::first_free(&mut conn, &providers, &starts, &ends).await?;
            if let Some(first) = first.and_then(|first| usize::try_from(first).ok()) {
                return Ok(Some(chunk * ASKED + first));
            }
        }
        Ok(None)
    }

    /// Gives back what is held for a visit, unless it is displaced: another worker that judged it has told of these places.
    pub(super) async fn give_back(&self, visit: AppointmentId) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        let row = store::lock(&mut tx, visit).await?;
        if row.is_some_and(|row| row.state != State::Displaced) {
            release(&mut tx, visit, By::default()).await?;
        }
        tx.commit().await?;
        self.freed.notify_one();
        Ok(())
    }

    /// Puts what nobody has answered on the work list, and gives back what is held for nothing.
    pub(super) async fn look_at_displaced(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        store::put_on_work_list(&mut conn).await?;
        let pointless =
            store::without_displacement(&mut conn, DRIVE_LEASE.as_secs_f64() * LEASES, BATCH).await?;
        drop(conn);
        for id in pointless {
            self.end_offer(id, OfferState::Withdrawn).await?;
        }
        Ok(())
    }
}

fn place_of(slot: &SlotOption) -> Option<Place> {
    let instant = |t: prost_types::Timestamp| DateTime::from_timestamp(t.seconds, 0);
    let interval = slot.interval?;
    Some(Place {
        provider: slot.provider_id.parse().ok()?,
        clinic: slot.clinic_id.parse().ok()?,
        start: instant(interval.start_time?)?,
        end: instant(interval.end_time?)?,
    })
}

/// The places held instead of a locked visit, as its patient is told, in the order of preference.
pub(super) async fn held(tx: &mut PgConnection, visit: AppointmentId) -> Result<Vec<SlotOption>, Error> {
    Ok(store::alternatives(tx, visit).await?.iter().map(option).collect())
}

fn option(row: &Reservation) -> SlotOption {
    // The zone came from scheduling, which only knows zones of this same table.
    let zone: Tz = row.time_zone.parse().unwrap_or(Tz::UTC);
    SlotOption {
        provider_id: row.provider_id.to_string(),
        clinic_id: row.clinic_id.to_string(),
        interval: wire::interval(row.start, row.end),
        local_start: row.start.with_timezone(&zone).to_rfc3339(),
        offer_id: row.id.to_string(),
        expire_time: row.hold_expires_at.map(timestamp),
    }
}

/// A locked visit is displaced no more: what is held instead of it is given back.
pub(super) async fn release(tx: &mut PgConnection, visit: AppointmentId, by: By<'_>) -> Result<(), Error> {
    for row in store::lock_alternatives(tx, visit).await? {
        end(tx, row, by).await?;
    }
    Ok(())
}

/// A locked visit that is displaced moves: to the place of the `offer` named, which is closed already, or to `start` with `provider`.
/// The place it takes of those held instead of it is accepted, the others are given back. Answers the offer that it takes.
pub(super) async fn leave(
    tx: &mut PgConnection,
    visit: AppointmentId,
    held: Vec<Reservation>,
    (provider, start): (ProviderId, DateTime<Utc>),
    offer: Option<OfferId>,
    by: By<'_>,
) -> Result<Option<OfferId>, Error> {
    let mut taken = offer;
    for mut row in held.into_iter().filter(|row| offer != Some(row.id.uuid().into())) {
        let here = (row.provider_id, row.start) == (provider, start);
        if here && taken.is_none() && !row.is_over() {
            taken = Some(row.id.uuid().into());
            close(tx, &mut row, OfferState::Accepted, by, Some(visit)).await?;
        } else {
            end(tx, row, by).await?;
        }
    }
    Ok(taken)
}

async fn end(tx: &mut PgConnection, mut row: Reservation, by: By<'_>) -> Result<(), Error> {
    let outcome = if row.is_over() { OfferState::Expired } else { OfferState::Withdrawn };
    close(tx, &mut row, outcome, by, None).await.map(drop)
}

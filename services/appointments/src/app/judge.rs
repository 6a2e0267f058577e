//! When a calendar changes under holds and bookings: each that the change may concern is judged again. A hold that no longer fits
//! is released; a booking keeps its time and waits, displaced, for someone's decision, with other places held for its patient; one
//! that fits again stands.
//!
//! The event marks rows in its own transaction; a worker of any replica asks scheduling afterwards. A booking that was judged at
//! the event's version or later is not marked, so an event that comes late changes nothing.

use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt as _;
use kit::fields::{date, timestamp};
use kit::ids::ProviderId;
use proto::clinic::appointments::v1::SlotOption;
use proto::clinic::scheduling::v1::{AvailabilityQuery, CheckSlotRequest, SearchAvailabilityRequest};

use super::{App, alternatives, offers, step};
use crate::app::book::Slot;
use crate::domain::waitlist::OfferState;
use crate::domain::{Conflict, NewReservation, Reservation, State};
use crate::error::{Error, reason_of};
use crate::store::By;
use crate::{events, store};

/// Rows that one look takes.
const BATCH: i64 = 50;
/// Questions that one look asks at a time.
const AT_A_TIME: usize = 8;
/// Slots that a refused caller is told of.
const NEARBY: usize = 5;
/// Days before and after a refused slot in which they are looked for.
const NEARBY_DAYS: (i64, i64) = (1, 2);
/// How long a refusal may wait for them.
const NEARBY_WITHIN: Duration = Duration::from_millis(200);
/// Slots that one search brings to choose from.
const PAGE: i32 = 500;

impl App {
    /// Judges again whatever is marked.
    pub(super) async fn judge_marked(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let marked = store::claim_to_judge(&mut conn, BATCH).await?;
        drop(conn);
        if marked.len() as i64 == BATCH {
            self.marked.notify_one();
        }
        futures::stream::iter(marked)
            .for_each_concurrent(AT_A_TIME, async |row| {
                let id = row.id;
                if let Err(error) = self.judge_again(row).await {
                    let cause = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(%id, cause, "an appointment under a changed calendar could not be judged this time");
                }
            })
            .await;
        Ok(())
    }

    async fn judge_again(&self, seen: Reservation) -> Result<(), Error> {
        let request = CheckSlotRequest {
            service_type_id: seen.service_type_id.to_string(),
            clinic_id: seen.clinic_id.to_string(),
            provider_id: seen.provider_id.to_string(),
            room_id: seen.room_id.to_string(),
            start_time: Some(timestamp(seen.start)),
            overriding: false,
            standing_end_time: Some(timestamp(seen.end)),
        };
        let answer = self.scheduling.check_slot(request).await?;
        let version = answer.providers.first().map_or(0, |p| p.calendar_version);
        if Some(version) < seen.judge_at {
            // That replica has not followed yet; the mark stays.
            let mut conn = self.db.pool().acquire().await?;
            return Ok(store::judge_later(&mut conn, seen.id).await?);
        }
        let mut reasons: Vec<String> = answer.blocks.iter().map(reason_of).collect();
        reasons.retain(|reason| !seen.overridden.contains(reason));
        reasons.dedup();
        let displaced = !reasons.is_empty() && seen.state == State::Booked;
        if displaced {
            self.hold_alternatives(&seen).await;
        }
        let settled = self.settle(&seen, version, reasons).await;
        if matches!(settled, Ok(true)) {
            self.freed.notify_one();
        } else if displaced {
            self.give_back(seen.id).await?;
        }
        settled.map(drop)
    }

    /// Writes down what a judgement found; false when the row moved on, or its calendar did. A mark that stands is taken up again.
    async fn settle(
        &self,
        seen: &Reservation,
        version: i64,
        mut reasons: Vec<String>,
    ) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        let Some(mut row) = store::lock(&mut tx, seen.id).await? else { return Ok(false) };
        if (row.version, row.judge_at) != (seen.version, seen.judge_at) {
            return Ok(false);
        }
        // Whatever its calendar says, it waits for its patient's survivor.
        let own = row.displaced_reasons.iter().filter(|reason| Conflict::is_own_rule(reason));
        reasons.extend(own.cloned());
        row.calendar_version = version;
        row.judge_at = None;
        match (row.state, reasons.is_empty()) {
            (State::Displaced, true) => {
                let before = row.clone();
                alternatives::release(&mut tx, row.id, By::default()).await?;
                step(&mut row, State::Booked)?;
                (row.displaced_at, row.displaced_reasons) = (None, vec![]);
                store::save(&mut tx, &mut row, By::default(), |row| events::rescheduled(row, &before, None))
                    .await?;
            }
            (State::Offered, false) => {
                row.displaced_reasons = reasons;
                offers::close(&mut tx, &mut row, OfferState::Withdrawn, By::default(), None).await?;
            }
            (State::Held, false) => {
                row.displaced_reasons = reasons;
                step(&mut row, State::Released)?;
                store::save(&mut tx, &mut row, By::default(), events::released).await?;
            }
            (State::Booked, false) => {
                (row.displaced_at, row.displaced_reasons) = (Some(self.now()), reasons);
                step(&mut row, State::Displaced)?;
                let held = alternatives::held(&mut tx, row.id).await?;
                let tell = |row: &Reservation| events::displaced(row, held);
                store::save(&mut tx, &mut row, By::default(), tell).await?;
            }
            (State::Displaced, false) => {
                row.displaced_reasons = reasons;
                store::judged(&mut tx, &row).await?;
            }
            _ => store::judged(&mut tx, &row).await?,
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Free slots near one that was refused, other than itself.
    pub(super) async fn nearby(&self, slot: &Slot, new: &NewReservation) -> Vec<SlotOption> {
        let (before, after) = NEARBY_DAYS;
        let query = AvailabilityQuery {
            service_type_id: slot.service_type.to_string(),
            clinic_ids: vec![slot.clinic.to_string()],
            provider_ids: slot.provider.map(|p| p.to_string()).into_iter().collect(),
            first_date: Some(date(new.visit_date - TimeDelta::days(before))),
            last_date: Some(date(new.visit_date + TimeDelta::days(after))),
            any_provider: slot.provider.is_none(),
            ..Default::default()
        };
        let nearest = self.nearest(query, slot.start, None);
        let mut found = tokio::time::timeout(NEARBY_WITHIN, nearest).await.unwrap_or_default();
        found.truncate(NEARBY);
        found
    }

    /// The free slots of a search that start nearest to `start`; at it only with others than `provider`, with nobody when that is `None`.
    pub(super) async fn nearest(
        &self,
        query: AvailabilityQuery,
        start: chrono::DateTime<chrono::Utc>,
        provider: Option<ProviderId>,
    ) -> Vec<SlotOption> {
        let request = SearchAvailabilityRequest { query: Some(query), page_size: PAGE, ..Default::default() };
        let mut slots = match self.scheduling.search(request).await {
            Ok(found) => found.slots,
            Err(error) => {
                tracing::debug!(%error, "no slots to offer instead");
                return vec![];
            }
        };
        let distance = |slot: &proto::clinic::scheduling::v1::Slot| {
            let begins = slot.interval.and_then(|i| i.start_time).map_or(0, |t| t.seconds);
            (begins - start.timestamp()).abs()
        };
        let own = provider.map(|provider| provider.to_string());
        slots.retain(|slot| distance(slot) > 0 || own.as_ref().is_some_and(|own| *own != slot.provider_id));
        slots.sort_by_key(distance);
        let option = |slot: proto::clinic::scheduling::v1::Slot| SlotOption {
            provider_id: slot.provider_id,
            clinic_id: slot.clinic_id,
            interval: slot.interval,
            local_start: slot.local_start,
            ..Default::default()
        };
        slots.into_iter().map(option).collect()
    }
}

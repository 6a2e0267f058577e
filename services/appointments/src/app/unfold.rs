//! Calendars that changed: which time became free by it, and where, is scheduling's to say. A note of the range becomes one of each
//! place, which is matched like any other freed time.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta};
use kit::fields::date;
use kit::ids::ClinicId;
use proto::clinic::scheduling::v1 as scheduling;
use proto::clinic::scheduling::v1::{AvailabilityQuery, SearchAvailabilityRequest};

use super::App;
use super::book::Slot;
use super::refill::{AGAIN, FOLLOWED_WITHIN, Known, is_refused};
use crate::domain::Span;
use crate::error::Error;
use crate::store;
use crate::store::{Freed, Wanted};

/// Days of one search, the most that scheduling answers.
const SEARCH_DAYS: TimeDelta = TimeDelta::days(61);
/// Clinics that one search may name.
const SEARCH_CLINICS: usize = 100;
/// Slots of one page.
const PAGE: i32 = 500;

/// Notes that one look takes.
const BATCH: i64 = 20;

impl App {
    /// Asks about what is due, one after the other: none of it is in a hurry, and it may be a lot.
    pub(super) async fn look_at_calendars(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let due = store::claim_freed(&mut conn, false, BATCH).await?;
        drop(conn);
        for freed in due {
            let id = freed.id;
            if let Err(error) = self.unfold(freed).await {
                let cause = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(id, cause, "a changed calendar could not be searched for free time this time");
            }
        }
        Ok(())
    }

    /// A calendar changed: asks scheduling what is free in that range now, and notes it place by place.
    async fn unfold(&self, freed: Freed) -> Result<(), Error> {
        if freed.free.end <= freed.free.start {
            return self.done(&freed).await;
        }
        let mut conn = self.db.pool().acquire().await?;
        let wanted = store::wanted_with(&mut conn, freed.provider).await?;
        drop(conn);
        let mut found: HashMap<ClinicId, (String, Vec<Span>)> = HashMap::new();
        for wanted in &wanted {
            let Some(slots) = self.free_slots(&freed, wanted).await? else {
                return self.later(&freed, freed.now + AGAIN).await;
            };
            for (clinic, visit) in slots {
                if let Some((_, spans)) = found.get_mut(&clinic) {
                    spans.push(visit);
                    continue;
                }
                let slot = Slot {
                    patient: None,
                    service_type: wanted.service_type,
                    clinic,
                    provider: Some(freed.provider),
                    room: None,
                    start: visit.start,
                    override_reason: String::new(),
                };
                if let Some(judged) = self.ask(&slot, &mut Known::default()).await? {
                    found.insert(clinic, (judged.new.time_zone, vec![visit]));
                }
            }
        }
        let mut tx = self.db.begin().await?;
        for (clinic, (zone, spans)) in found {
            for free in merged(spans) {
                store::free_place(&mut tx, freed.provider, clinic, &zone, free).await?;
            }
        }
        // Else it took so long that another worker does the same.
        if store::freed_done(&mut tx, &freed).await? {
            tx.commit().await?;
            self.freed.notify_one();
        }
        Ok(())
    }

    /// Free slots of a kind with a provider in a range; `None` when scheduling has not followed the calendar that far yet.
    async fn free_slots(
        &self,
        freed: &Freed,
        wanted: &Wanted,
    ) -> Result<Option<Vec<(ClinicId, Span)>>, Error> {
        let day = TimeDelta::days(1);
        let first = wanted.first_date.max((freed.free.start - day).date_naive());
        let last = wanted.last_date.min((freed.free.end + day).date_naive());
        let clinics = if wanted.clinics.len() > SEARCH_CLINICS { &[][..] } else { &wanted.clinics[..] };
        let old = freed.age > FOLLOWED_WITHIN;
        let mut slots = vec![];
        let mut from = first;
        while from <= last {
            let until = last.min(from + SEARCH_DAYS);
            let query = AvailabilityQuery {
                service_type_id: wanted.service_type.to_string(),
                clinic_ids: clinics.iter().map(ToString::to_string).collect(),
                provider_ids: vec![freed.provider.to_string()],
                first_date: Some(date(from)),
                last_date: Some(date(until)),
                ..Default::default()
            };
            let mut page_token = String::new();
            loop {
                let request = SearchAvailabilityRequest {
                    query: Some(query.clone()),
                    page_size: PAGE,
                    page_token,
                    ..Default::default()
                };
                let page = match self.scheduling.search(request).await {
                    Ok(page) => page,
                    // It does not know the provider or the kind of visit any more, or not yet.
                    Err(error) if is_refused(&error) => return Ok(old.then(Vec::new)),
                    Err(error) => return Err(error),
                };
                // It names no version of a provider who has no hours there, or none yet.
                let seen = page.calendar_versions.get(&freed.provider.to_string());
                if seen.map_or(!old, |seen| *seen < freed.calendar_version) {
                    return Ok(None);
                }
                let within = |(_, visit): &(ClinicId, Span)| {
                    visit.start < freed.free.end && freed.free.start < visit.end
                };
                slots.extend(page.slots.iter().filter_map(place_of).filter(within));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            from = until + day;
        }
        Ok(Some(slots))
    }
}

/// Where and when a slot is.
fn place_of(slot: &scheduling::Slot) -> Option<(ClinicId, Span)> {
    let instant = |t: prost_types::Timestamp| DateTime::from_timestamp(t.seconds, 0);
    let interval = slot.interval?;
    let (start, end) = (instant(interval.start_time?)?, instant(interval.end_time?)?);
    Some((slot.clinic_id.parse().ok()?, Span { start, end }))
}

/// Spans that touch or overlap as one.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.start, span.end));
    let mut merged: Vec<Span> = vec![];
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

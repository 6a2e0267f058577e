//! AvailabilityService: answered from memory alone.

use chrono::{DateTime, Utc};
use kit::fields::{Fields, timestamp};
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::availability_service_server::AvailabilityService;
use tonic::{Request, Response, Status, async_trait};

use super::watch::{Changes, Watch};
use super::{Availability, check, decode, encode, paging};
use crate::DOMAIN;
use crate::domain::check::{self, Answer, Block, Question};
use crate::domain::search::{MAX_DAYS, Query, Search, Slot};
use crate::domain::span::Minute;
use crate::domain::{shift, zone};
use crate::error::Error;

/// Clinics and providers that one query names at most.
const MAX_CLINICS: usize = 100;
const MAX_PROVIDERS: usize = 1_000;
const DAY: u16 = 24 * 60;
/// Longest visit that is judged again.
const MAX_STANDING_MINUTES: Minute = zone::DAY;

#[async_trait]
impl AvailabilityService for Availability {
    async fn search_availability(
        &self,
        request: Request<wire::SearchAvailabilityRequest>,
    ) -> Result<Response<wire::SearchAvailabilityResponse>, Status> {
        let body = request.into_inner();
        let now = self.app.now();
        let mut f = Fields::new();
        let query = decode_query(&mut f, body.query.as_ref(), now);
        let view = wire::AvailabilityView::try_from(body.view);
        f.ensure(view.is_ok(), "view", "must be slots or day counts");
        let page = paging(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let state = self.app.view();
        let search = Search::new(&state.network, &query, now).map_err(Error::from)?;
        let mut answer = wire::SearchAvailabilityResponse {
            as_of: Some(timestamp(state.as_of)),
            calendar_versions: search
                .calendar_versions()
                .into_iter()
                .map(|(id, v)| (id.to_string(), v))
                .collect(),
            ..Default::default()
        };
        if view == Ok(wire::AvailabilityView::DayCounts) {
            let count = |((date, clinic), slots): ((_, kit::ids::ClinicId), i32)| wire::DayCount {
                date: Some(kit::fields::date(date)),
                clinic_id: clinic.to_string(),
                slots,
            };
            answer.day_counts = search.day_counts().into_iter().map(count).collect();
        } else {
            let after =
                page.after.map(|(start, clinic_id, provider_id)| Slot { start, clinic_id, provider_id });
            let slots = search.slots(after, page.size + 1);
            let (slots, token) = page.cut(slots, |s| (s.start, s.clinic_id, s.provider_id));
            answer.slots = slots.into_iter().map(|slot| encode_slot(&search, slot)).collect();
            answer.next_page_token = token;
        }
        Ok(Response::new(answer))
    }

    async fn explain_availability(
        &self,
        request: Request<wire::ExplainAvailabilityRequest>,
    ) -> Result<Response<wire::ExplainAvailabilityResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let provider = f.id("provider_id", &body.provider_id);
        let question = Question {
            service_type: f.id("service_type_id", &body.service_type_id),
            clinic: f.id("clinic_id", &body.clinic_id),
            provider: Some(provider),
            room: None,
            start: decode::grid_instant(&mut f, "start_time", body.start_time),
            overriding: false,
            standing_end: None,
        };
        check(f)?;
        let state = self.app.view();
        let found =
            check::explain(&state.network, &question, provider, self.app.now()).map_err(Error::from)?;
        Ok(Response::new(wire::ExplainAvailabilityResponse {
            available: found.blocks.is_empty(),
            blocks: found.blocks.into_iter().map(encode_block).collect(),
            local_start: zone::rfc3339(found.time_zone, question.start),
            calendar_version: found.calendar_version,
            as_of: Some(timestamp(state.as_of)),
        }))
    }

    async fn watch_availability(
        &self,
        request: Request<wire::WatchAvailabilityRequest>,
    ) -> Result<Response<Changes>, Status> {
        let caller = kit::auth::caller(&request)?;
        let now = self.app.now();
        let mut f = Fields::new();
        let query = decode_query(&mut f, request.get_ref().query.as_ref(), now);
        check(f)?;
        let seat = self.seats.take(&caller.subject, DOMAIN)?;
        let watch = Watch::open(self.app.clock.clone(), self.app.mirror.views(), query, now)?;
        Ok(Response::new(watch.follow(self.app.stop.clone(), seat)))
    }

    async fn check_slot(
        &self,
        request: Request<wire::CheckSlotRequest>,
    ) -> Result<Response<wire::CheckSlotResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let question = Question {
            service_type: f.id("service_type_id", &body.service_type_id),
            clinic: f.id("clinic_id", &body.clinic_id),
            provider: f.optional_id("provider_id", &body.provider_id),
            room: f.optional_id("room_id", &body.room_id),
            start: decode::grid_instant(&mut f, "start_time", body.start_time),
            overriding: body.overriding,
            standing_end: body
                .standing_end_time
                .map(|end| decode::grid_instant(&mut f, "standing_end_time", Some(end))),
        };
        if let (Some(end), Some(_)) = (question.standing_end, body.start_time) {
            let good = (1..=MAX_STANDING_MINUTES).contains(&(end - question.start));
            f.ensure(good, "standing_end_time", "must be after the start, by a day at most");
        }
        check(f)?;
        let state = self.app.view();
        let answer = check::check(&state.network, &question, self.app.now()).map_err(Error::from)?;
        Ok(Response::new(encode_answer(answer)))
    }
}

fn decode_query(f: &mut Fields, query: Option<&wire::AvailabilityQuery>, now: DateTime<Utc>) -> Query {
    f.ensure(query.is_some(), "query", "is required");
    let q = query.cloned().unwrap_or_default();
    let first = decode::optional_date(f, "query.first_date", q.first_date.as_ref());
    let last = decode::optional_date(f, "query.last_date", q.last_date.as_ref());
    if let Some(last) = last {
        // Somewhere tomorrow has begun already; the search cuts at each clinic's own bound.
        let from = first.unwrap_or_else(|| shift(now.date_naive(), 1));
        f.ensure(
            last <= shift(from, MAX_DAYS - 1),
            "query.last_date",
            "must be at most 61 days after the first day",
        );
        f.ensure(
            first.is_none_or(|first| first <= last),
            "query.last_date",
            "must not be before the first day",
        );
    }
    let from_minute = clock_time(f, "query.start_from", q.start_from.as_ref(), 0);
    let before_minute = clock_time(f, "query.start_before", q.start_before.as_ref(), DAY);
    f.ensure(from_minute < before_minute, "query.start_before", "must be later than start_from");
    for (i, day) in q.days_of_week.iter().enumerate() {
        f.ensure((1..=7).contains(day), &format!("query.days_of_week[{i}]"), "must be a day of the week");
    }
    Query {
        service_type: f.id("query.service_type_id", &q.service_type_id),
        clinics: decode::ids(f, "query.clinic_ids", &q.clinic_ids, MAX_CLINICS),
        providers: decode::ids(f, "query.provider_ids", &q.provider_ids, MAX_PROVIDERS),
        first,
        last,
        from_minute,
        before_minute,
        weekdays: q.days_of_week.iter().filter_map(|day| u8::try_from(*day).ok()).collect(),
        any_provider: q.any_provider,
    }
}

/// A filter may name any minute, on the grid or not.
fn clock_time(
    f: &mut Fields,
    field: &str,
    time: Option<&proto::google::r#type::TimeOfDay>,
    unset: u16,
) -> u16 {
    time.map_or(unset, |time| f.minute_of_day(field, Some(time)))
}

pub(super) fn encode_slot(search: &Search<'_>, slot: Slot) -> wire::Slot {
    let (visit, zone) = search.visit(slot);
    wire::Slot {
        provider_id: slot.provider_id.to_string(),
        clinic_id: slot.clinic_id.to_string(),
        interval: Some(encode::interval(visit)),
        local_start: zone::rfc3339(zone, slot.start),
    }
}

fn encode_block(block: Block) -> wire::Block {
    wire::Block {
        code: block.code.into(),
        message: block.message,
        overridable: block.overridable,
        interval: block.span.map(encode::interval),
        source_id: encode::id(block.source),
    }
}

fn encode_answer(answer: Answer) -> wire::CheckSlotResponse {
    let provider = |(id, calendar_version): (kit::ids::ProviderId, i64)| wire::SlotProvider {
        provider_id: id.to_string(),
        calendar_version,
    };
    wire::CheckSlotResponse {
        ok: answer.ok,
        blocks: answer.blocks.into_iter().map(encode_block).collect(),
        providers: answer.providers.into_iter().map(provider).collect(),
        room_ids: answer.rooms.iter().map(ToString::to_string).collect(),
        interval: Some(encode::interval(answer.visit)),
        occupied_interval: Some(encode::interval(answer.occupied)),
        visit_date: Some(kit::fields::date(answer.date)),
        time_zone: answer.time_zone.name().to_owned(),
        copay_required: answer.copay_required,
        intake_form_id: encode::id(answer.intake_form),
    }
}

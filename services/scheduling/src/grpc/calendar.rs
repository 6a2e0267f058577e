//! CalendarService.

use chrono::{DateTime, Utc};
use kit::fields::{Fields, timestamp};
use kit::ids::{BlackoutId, CalendarLinkId, ClinicId, ExceptionId, ProviderId, WeeklyTemplateId};
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::calendar_service_server::CalendarService;
use tonic::{Request, Response, Status, async_trait};

use super::{Calendar, attribute, check, decode, encode, paging};
use crate::app::{calendar, link};
use crate::domain::agenda::agenda;
use crate::domain::search::MAX_DAYS;
use crate::domain::span::instant;
use crate::error::{Error, not_found};
use crate::store;
use crate::store::calendar::ExceptionFilter;

/// Entries of one answer.
const MAX_ENTRIES: usize = 5_000;

#[async_trait]
impl CalendarService for Calendar {
    async fn put_weekly_template(
        &self,
        request: Request<wire::PutWeeklyTemplateRequest>,
    ) -> Result<Response<wire::WeeklyTemplate>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "PutWeeklyTemplate", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let (template, etag) = decode::template(&mut f, body.weekly_template.as_ref());
        check(f)?;
        let app = &self.0;
        let answer = app.once(&by, &body, async |tx| calendar::put_template(app, tx, template, &etag).await);
        Ok(Response::new(answer.await?))
    }

    async fn list_weekly_templates(
        &self,
        request: Request<wire::ListWeeklyTemplatesRequest>,
    ) -> Result<Response<wire::ListWeeklyTemplatesResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let provider = f.optional_id("provider_id", &body.provider_id);
        let clinic = f.optional_id("clinic_id", &body.clinic_id);
        let page = paging::<(ProviderId, WeeklyTemplateId)>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let rows =
            store::calendar::templates(self.0.pool(), provider, clinic, page.after, page.limit()).await;
        let (rows, next_page_token) = page.cut(rows.map_err(Error::from)?, |t| (t.provider_id, t.id));
        Ok(Response::new(wire::ListWeeklyTemplatesResponse {
            weekly_templates: rows.iter().map(encode::template).collect(),
            next_page_token,
        }))
    }

    async fn delete_weekly_template(
        &self,
        request: Request<wire::DeleteWeeklyTemplateRequest>,
    ) -> Result<Response<wire::DeleteWeeklyTemplateResponse>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "DeleteWeeklyTemplate", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id: WeeklyTemplateId = f.id("weekly_template_id", &body.weekly_template_id);
        check(f)?;
        let app = &self.0;
        let answer =
            app.once(&by, &body, async |tx| calendar::delete_template(app, tx, id, &body.etag).await);
        Ok(Response::new(answer.await?))
    }

    async fn add_exception(
        &self,
        request: Request<wire::AddExceptionRequest>,
    ) -> Result<Response<wire::CalendarException>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "AddException", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id = f.optional_id("exception_id", &body.exception_id).unwrap_or_else(ExceptionId::new);
        let exception = decode::exception(&mut f, id, body.exception.as_ref());
        check(f)?;
        let app = &self.0;
        let answer =
            app.once(&by, &body, async |tx| calendar::add_exception(app, tx, exception).await).await?;
        Ok(Response::new(answer))
    }

    async fn list_exceptions(
        &self,
        request: Request<wire::ListExceptionsRequest>,
    ) -> Result<Response<wire::ListExceptionsResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let interval = body.interval.unwrap_or_default();
        let filter = ExceptionFilter {
            provider: f.optional_id("provider_id", &body.provider_id),
            clinic: f.optional_id("clinic_id", &body.clinic_id),
            kind: decode::exception_kind(&mut f, "kind", body.kind),
            ends_after: interval.start_time.map(|t| f.instant("interval.start_time", Some(t))),
            starts_before: interval.end_time.map(|t| f.instant("interval.end_time", Some(t))),
        };
        let page = paging::<(DateTime<Utc>, ExceptionId)>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let rows = store::calendar::exceptions(self.0.pool(), filter, page.after, page.limit()).await;
        let (rows, next_page_token) = page.cut(rows.map_err(Error::from)?, |e| (instant(e.span.start), e.id));
        Ok(Response::new(wire::ListExceptionsResponse {
            exceptions: rows.iter().map(encode::exception).collect(),
            next_page_token,
        }))
    }

    async fn remove_exception(
        &self,
        request: Request<wire::RemoveExceptionRequest>,
    ) -> Result<Response<wire::RemoveExceptionResponse>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "RemoveException", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id: ExceptionId = f.id("exception_id", &body.exception_id);
        check(f)?;
        let app = &self.0;
        let answer = app.once(&by, &body, async |tx| calendar::remove_exception(app, tx, id).await).await?;
        Ok(Response::new(answer))
    }

    async fn add_blackout(
        &self,
        request: Request<wire::AddBlackoutRequest>,
    ) -> Result<Response<wire::Blackout>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "AddBlackout", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id = f.optional_id("blackout_id", &body.blackout_id).unwrap_or_else(BlackoutId::new);
        let blackout = decode::blackout(&mut f, id, body.blackout.as_ref());
        check(f)?;
        let app = &self.0;
        let answer = app.once(&by, &body, async |tx| calendar::add_blackout(app, tx, blackout).await).await?;
        Ok(Response::new(answer))
    }

    async fn list_blackouts(
        &self,
        request: Request<wire::ListBlackoutsRequest>,
    ) -> Result<Response<wire::ListBlackoutsResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let clinic = f.optional_id("clinic_id", &body.clinic_id);
        let days = body.days.as_ref().map(|span| decode::days(&mut f, "days", span));
        let page = paging::<i64>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let mut db = self.0.pool().acquire().await.map_err(Error::from)?;
        let rows = store::calendar::blackouts(&mut db, clinic, days.as_ref(), page.after, page.limit()).await;
        let (rows, next_page_token) = page.cut(rows.map_err(Error::from)?, |(position, _)| *position);
        Ok(Response::new(wire::ListBlackoutsResponse {
            blackouts: rows.iter().map(|(_, blackout)| encode::blackout(blackout)).collect(),
            next_page_token,
        }))
    }

    async fn remove_blackout(
        &self,
        request: Request<wire::RemoveBlackoutRequest>,
    ) -> Result<Response<wire::RemoveBlackoutResponse>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "RemoveBlackout", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id: BlackoutId = f.id("blackout_id", &body.blackout_id);
        check(f)?;
        let app = &self.0;
        let answer = app.once(&by, &body, async |tx| calendar::remove_blackout(app, tx, id).await).await?;
        Ok(Response::new(answer))
    }

    async fn get_provider_calendar(
        &self,
        request: Request<wire::GetProviderCalendarRequest>,
    ) -> Result<Response<wire::ProviderCalendar>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let id: ProviderId = f.id("provider_id", &body.provider_id);
        let clinic: Option<ClinicId> = f.optional_id("clinic_id", &body.clinic_id);
        f.ensure(body.days.is_some(), "days", "is required");
        let days = decode::days(&mut f, "days", &body.days.unwrap_or_default());
        let good = (*days.end() - *days.start()).num_days() < MAX_DAYS;
        f.ensure(good, "days", "must be at most 62");
        check(f)?;
        let state = self.0.view();
        let member = state.network.member(id).ok_or_else(|| not_found(id))?;
        if let Some(clinic) = clinic.filter(|id| state.network.site(*id).is_none()) {
            return Err(not_found(clinic).into());
        }
        let then = calendar::as_of_old(&self.0, member, &days).await?;
        let entries = agenda(&state.network, then.as_ref().unwrap_or(member), clinic, &days);
        if entries.len() > MAX_ENTRIES {
            return Err(Error::TooManyEntries { found: entries.len(), most: MAX_ENTRIES }.into());
        }
        Ok(Response::new(wire::ProviderCalendar {
            provider_id: id.to_string(),
            calendar_version: member.calendar.version,
            entries: entries.into_iter().map(encode::entry).collect(),
            as_of: Some(timestamp(state.as_of)),
        }))
    }

    async fn create_calendar_link(
        &self,
        request: Request<wire::CreateCalendarLinkRequest>,
    ) -> Result<Response<wire::CalendarLink>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "CreateCalendarLink", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let subject = decode::subject(&mut f, body.subject.as_ref());
        check(f)?;
        let now = self.0.now();
        let mut made = self.0.once(&by, &body, async |tx| link::create(tx, subject, now).await).await?;
        // Afterwards, so that the answer kept for a repeated request has no address in it.
        let id = made.id.parse().expect("our answers name links by their UUID");
        made.url = self.0.address(id).await?;
        Ok(Response::new(made))
    }

    async fn list_calendar_links(
        &self,
        request: Request<wire::ListCalendarLinksRequest>,
    ) -> Result<Response<wire::ListCalendarLinksResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let provider = f.optional_id("provider_id", &body.provider_id);
        let clinic = f.optional_id("clinic_id", &body.clinic_id);
        let page = paging::<CalendarLinkId>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let rows = store::link::links(self.0.pool(), provider, clinic, page.after, page.limit()).await;
        let (rows, next_page_token) = page.cut(rows.map_err(Error::from)?, |link| link.id);
        Ok(Response::new(wire::ListCalendarLinksResponse {
            calendar_links: rows.iter().map(encode::calendar_link).collect(),
            next_page_token,
        }))
    }

    async fn revoke_calendar_link(
        &self,
        request: Request<wire::RevokeCalendarLinkRequest>,
    ) -> Result<Response<wire::CalendarLink>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "RevokeCalendarLink", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id: CalendarLinkId = f.id("calendar_link_id", &body.calendar_link_id);
        check(f)?;
        let now = self.0.now();
        let answer = self.0.once(&by, &body, async |tx| link::revoke(tx, id, now).await).await?;
        Ok(Response::new(answer))
    }
}

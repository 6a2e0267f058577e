//! CalendarService.

use chrono::{DateTime, Utc};
use kit::fields::Fields;
use kit::ids::{BlackoutId, CalendarLinkId, ExceptionId, ProviderId, WeeklyTemplateId};
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::calendar_service_server::CalendarService;
use tonic::{Request, Response, Status, async_trait};

use super::{Calendar, attribute, check, decode, encode, paging};
use crate::app::{calendar, link};
use crate::domain::span::instant;
use crate::error::Error;
use crate::store;
use crate::store::calendar::ExceptionFilter;

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
        let now = self.0.now();
        let answer =
            self.0.once(&by, &body, async |tx| calendar::put_template(tx, template, &etag, now).await);
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
        let now = self.0.now();
        let answer =
            self.0.once(&by, &body, async |tx| calendar::delete_template(tx, id, &body.etag, now).await);
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
        let answer = self.0.once(&by, &body, async |tx| calendar::add_exception(tx, exception).await).await?;
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
        let answer = self.0.once(&by, &body, async |tx| calendar::remove_exception(tx, id).await).await?;
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
        let answer = self.0.once(&by, &body, async |tx| calendar::add_blackout(tx, blackout).await).await?;
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
        let answer = self.0.once(&by, &body, async |tx| calendar::remove_blackout(tx, id).await).await?;
        Ok(Response::new(answer))
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

//! Changing when providers work.

use std::sync::Arc;

use kit::ids::{BlackoutId, ExceptionId, WeeklyTemplateId};
use kit::status::Error as Common;
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::CalendarChangeCause as Cause;
use sqlx::PgConnection;

use super::edit::Edit;
use super::{App, compare_etag};
use crate::domain::calendar::{Blackout, Exception, WeeklyTemplate};
use crate::domain::network::{Calendar, Member, Network};
use crate::domain::span::{Span, instant};
use crate::domain::{Days, zone};
use crate::error::{Error, exists, not_found};
use crate::events::CalendarChange;
use crate::grpc::encode;
use crate::mirror::{self, View};
use crate::store;

/// Templates that one provider has at most: bounds the work of expanding a calendar.
const MAX_TEMPLATES: usize = 50;

/// Adds a template, or replaces the one with its id when `etag` is its state's.
pub async fn put_template(
    app: &App,
    tx: &mut PgConnection,
    mut template: WeeklyTemplate,
    etag: &str,
) -> Result<wire::WeeklyTemplate, Error> {
    let (mut edit, version) = Edit::calendar(app, tx, template.provider_id).await?;
    let before_change = edit.look().await?;
    let site = before_change.network.site(template.clinic_id).ok_or_else(|| not_found(template.clinic_id))?;
    if site.clinic.time_zone != template.rule.zone() {
        let hint = "TZID must be the clinic's time zone";
        return Err(Common::invalid("weekly_template.rule", hint).into());
    }
    let mut clinic = Some(template.clinic_id);
    let mut reach = vec![template.reach()];
    if let Some(before) = store::calendar::template(edit.tx, template.id).await? {
        compare_etag(etag, before.version, "WeeklyTemplate")?;
        if before.provider_id != template.provider_id {
            return Err(Common::invalid("weekly_template.provider_id", "is fixed at creation").into());
        }
        clinic = clinic.filter(|id| *id == before.clinic_id);
        reach.push(before.reach());
        template.version = before.version + 1;
    } else if !etag.is_empty() {
        return Err(Common::EtagMismatch { kind: "WeeklyTemplate" }.into());
    }
    template.calendar_version = version;
    if !store::calendar::put_template(edit.tx, &template).await? {
        return Err(Common::EtagMismatch { kind: "WeeklyTemplate" }.into());
    }
    let change = CalendarChange { clinic, cause: Cause::WeeklyTemplate, source: template.id.uuid() };
    let after = edit.tell_calendar(&before_change, template.provider_id, change, &reach).await?;
    bounded(&after.network, &template)?;
    Ok(encode::template(&template))
}

/// Refuses a template that is one too many, or that has the provider in two places at once.
fn bounded(after: &Network, template: &WeeklyTemplate) -> Result<(), Error> {
    let Some(member) = after.member(template.provider_id) else { return Ok(()) };
    if member.calendar.templates.len() > MAX_TEMPLATES {
        return Err(Error::TooManyTemplates { most: MAX_TEMPLATES });
    }
    let Some((other, span)) = member.calendar.clash(template, after.days()) else { return Ok(()) };
    let name = |id| after.site(id).map(|site| site.clinic.name.clone()).unwrap_or_default();
    Err(Error::TemplatesOverlap {
        ids: [template.id, other.id],
        clinics: [name(template.clinic_id), name(other.clinic_id)],
        first: zone::clock(template.rule.zone(), span),
    })
}

/// Deletes a template.
pub async fn delete_template(
    app: &App,
    tx: &mut PgConnection,
    id: WeeklyTemplateId,
    etag: &str,
) -> Result<wire::DeleteWeeklyTemplateResponse, Error> {
    let found = store::calendar::template(tx, id).await?.ok_or_else(|| not_found(id))?;
    let (mut edit, calendar_version) = Edit::calendar(app, tx, found.provider_id).await?;
    let before = edit.look().await?;
    // Read again under the provider's lock: another writer may have been first.
    let current = store::calendar::template(edit.tx, id).await?.ok_or_else(|| not_found(id))?;
    compare_etag(etag, current.version, "WeeklyTemplate")?;
    store::calendar::delete_template(edit.tx, id).await?;
    let clinic = Some(current.clinic_id);
    let change = CalendarChange { clinic, cause: Cause::WeeklyTemplate, source: id.uuid() };
    edit.tell_calendar(&before, current.provider_id, change, &[current.reach()]).await?;
    Ok(wire::DeleteWeeklyTemplateResponse { calendar_version })
}

/// Adds an exception.
pub async fn add_exception(
    app: &App,
    tx: &mut PgConnection,
    mut exception: Exception,
) -> Result<wire::CalendarException, Error> {
    let (mut edit, version) = Edit::calendar(app, tx, exception.provider_id).await?;
    edit.know(exception.clinic_id).await?;
    let before = edit.look().await?;
    exception.calendar_version = version;
    let inserted = store::calendar::insert_exception(edit.tx, &exception).await;
    inserted.map_err(exists(exception.id, "EXCEPTION_EXISTS"))?;
    edit.tell_calendar(&before, exception.provider_id, change_by(&exception), &[exception.span]).await?;
    Ok(encode::exception(&exception))
}

/// Removes an exception.
pub async fn remove_exception(
    app: &App,
    tx: &mut PgConnection,
    id: ExceptionId,
) -> Result<wire::RemoveExceptionResponse, Error> {
    let found = store::calendar::exception(tx, id).await?.ok_or_else(|| not_found(id))?;
    let (mut edit, calendar_version) = Edit::calendar(app, tx, found.provider_id).await?;
    let before = edit.look().await?;
    if !store::calendar::delete_exception(edit.tx, id).await? {
        return Err(not_found(id));
    }
    edit.tell_calendar(&before, found.provider_id, change_by(&found), &[found.span]).await?;
    Ok(wire::RemoveExceptionResponse { calendar_version })
}

fn change_by(exception: &Exception) -> CalendarChange {
    CalendarChange { clinic: exception.clinic_id, cause: Cause::Exception, source: exception.id.uuid() }
}

/// Closes a clinic or the network.
pub async fn add_blackout(
    app: &App,
    tx: &mut PgConnection,
    blackout: Blackout,
) -> Result<wire::Blackout, Error> {
    let mut edit = Edit::shared(app, tx).await?;
    edit.know(blackout.clinic_id).await?;
    let before = edit.look().await?;
    let inserted = store::calendar::insert_blackout(edit.tx, &blackout).await;
    inserted.map_err(exists(blackout.id, "BLACKOUT_EXISTS"))?;
    tell_blackout(edit, &before, &blackout).await?;
    Ok(encode::blackout(&blackout))
}

/// Removes a blackout.
pub async fn remove_blackout(
    app: &App,
    tx: &mut PgConnection,
    id: BlackoutId,
) -> Result<wire::RemoveBlackoutResponse, Error> {
    let mut edit = Edit::shared(app, tx).await?;
    let before = edit.look().await?;
    let found = store::calendar::blackout(edit.tx, id).await?.ok_or_else(|| not_found(id))?;
    store::calendar::delete_blackout(edit.tx, id).await?;
    tell_blackout(edit, &before, &found).await?;
    Ok(wire::RemoveBlackoutResponse {})
}

async fn tell_blackout(edit: Edit<'_>, before: &View, blackout: &Blackout) -> Result<(), Error> {
    let sites = before.network.sites().filter(|site| blackout.applies_at(site.clinic.id));
    let reach: Vec<Span> = sites.map(|site| blackout.at(site.clinic.time_zone)).collect();
    let (clinic, source) = (blackout.clinic_id, blackout.id.uuid());
    edit.tell_hours(before, CalendarChange { clinic, cause: Cause::Blackout, source }, &reach).await
}

/// A provider with the exceptions of days that passed too long ago to be in memory; `None` = all of `days` are.
pub async fn as_of_old(app: &App, member: &Member, days: &Days) -> Result<Option<Member>, Error> {
    let since = zone::whole_days(chrono_tz::UTC, days).start - zone::DAY;
    if instant(since) > app.now() - mirror::PAST {
        return Ok(None);
    }
    let id = member.provider.id;
    let exceptions = store::calendar::exceptions_of(app.pool(), &[id], instant(since)).await?;
    let calendar = Arc::new(Calendar { exceptions, ..Calendar::clone(&member.calendar) });
    Ok(Some(Member { provider: member.provider.clone(), calendar }))
}

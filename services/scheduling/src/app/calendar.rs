//! Changing when providers work. Each change first orders itself against the catalog's, see `store::lock_catalog`.

use chrono::{DateTime, Utc};
use kit::ids::{BlackoutId, ClinicId, ExceptionId, ProviderId, WeeklyTemplateId};
use kit::status::Error as Common;
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::CalendarChangeCause as Cause;
use sqlx::PgConnection;

use super::catalog::raise;
use super::compare_etag;
use crate::domain::calendar::{Blackout, BlackoutSpan, Exception, WeeklyTemplate};
use crate::domain::span::minute;
use crate::error::{Error, exists, not_found};
use crate::events::CalendarChange;
use crate::grpc::encode;
use crate::store::{self, Raised};

/// Adds a template, or replaces the one with its id when `etag` is its state's.
pub async fn put_template(
    tx: &mut PgConnection,
    mut template: WeeklyTemplate,
    etag: &str,
    now: DateTime<Utc>,
) -> Result<wire::WeeklyTemplate, Error> {
    store::lock_catalog(tx).await?;
    know(tx, template.provider_id, Some(template.clinic_id)).await?;
    let clinic = store::catalog::clinic(&mut *tx, template.clinic_id).await?;
    if clinic.is_some_and(|c| c.time_zone != template.rule.zone()) {
        let hint = "TZID must be the clinic's time zone";
        return Err(Common::invalid("weekly_template.rule", hint).into());
    }
    let now = minute(now);
    let mut change = CalendarChange {
        clinic: Some(template.clinic_id),
        affected: vec![template.reach(now)],
        cause: Cause::WeeklyTemplate,
        source: template.id.uuid(),
    };
    // The provider's row lock, taken first, keeps two writers of one template apart.
    let raised = store::raise_calendars(tx, Raised::One(template.provider_id)).await?;
    if let Some(before) = store::calendar::template(tx, template.id).await? {
        compare_etag(etag, before.version, "WeeklyTemplate")?;
        if before.provider_id != template.provider_id {
            return Err(Common::invalid("weekly_template.provider_id", "is fixed at creation").into());
        }
        if before.clinic_id != template.clinic_id {
            change.clinic = None;
        }
        change.affected.push(before.reach(now));
        template.version = before.version + 1;
    } else if !etag.is_empty() {
        return Err(Common::EtagMismatch { kind: "WeeklyTemplate" }.into());
    }
    template.calendar_version = version_of(&raised);
    if !store::calendar::put_template(tx, &template).await? {
        return Err(Common::EtagMismatch { kind: "WeeklyTemplate" }.into());
    }
    crate::events::calendars_changed(tx, &raised, &change).await?;
    Ok(encode::template(&template))
}

/// Deletes a template.
pub async fn delete_template(
    tx: &mut PgConnection,
    id: WeeklyTemplateId,
    etag: &str,
    now: DateTime<Utc>,
) -> Result<wire::DeleteWeeklyTemplateResponse, Error> {
    store::lock_catalog(tx).await?;
    let found = store::calendar::template(tx, id).await?.ok_or_else(|| not_found(id))?;
    let change = CalendarChange {
        clinic: Some(found.clinic_id),
        affected: vec![found.reach(minute(now))],
        cause: Cause::WeeklyTemplate,
        source: id.uuid(),
    };
    let raised = raise(tx, Raised::One(found.provider_id), &change).await?;
    // Read again under the provider's lock: another writer may have been first.
    let current = store::calendar::template(tx, id).await?.ok_or_else(|| not_found(id))?;
    compare_etag(etag, current.version, "WeeklyTemplate")?;
    store::calendar::delete_template(tx, id).await?;
    Ok(wire::DeleteWeeklyTemplateResponse { calendar_version: version_of(&raised) })
}

/// Adds an exception.
pub async fn add_exception(
    tx: &mut PgConnection,
    mut exception: Exception,
) -> Result<wire::CalendarException, Error> {
    store::lock_catalog(tx).await?;
    know(tx, exception.provider_id, exception.clinic_id).await?;
    let raised = raise(tx, Raised::One(exception.provider_id), &change_by(&exception)).await?;
    exception.calendar_version = version_of(&raised);
    let inserted = store::calendar::insert_exception(tx, &exception).await;
    inserted.map_err(exists(exception.id, "EXCEPTION_EXISTS"))?;
    Ok(encode::exception(&exception))
}

/// Removes an exception.
pub async fn remove_exception(
    tx: &mut PgConnection,
    id: ExceptionId,
) -> Result<wire::RemoveExceptionResponse, Error> {
    store::lock_catalog(tx).await?;
    let found = store::calendar::exception(tx, id).await?.ok_or_else(|| not_found(id))?;
    let raised = raise(tx, Raised::One(found.provider_id), &change_by(&found)).await?;
    if !store::calendar::delete_exception(tx, id).await? {
        return Err(not_found(id));
    }
    Ok(wire::RemoveExceptionResponse { calendar_version: version_of(&raised) })
}

fn change_by(exception: &Exception) -> CalendarChange {
    CalendarChange {
        clinic: exception.clinic_id,
        affected: vec![(exception.span.start, Some(exception.span.end))],
        cause: Cause::Exception,
        source: exception.id.uuid(),
    }
}

/// Closes a clinic or the network.
pub async fn add_blackout(tx: &mut PgConnection, blackout: Blackout) -> Result<wire::Blackout, Error> {
    store::raise_catalog(tx).await?;
    if let Some(clinic) = blackout.clinic_id {
        store::catalog::clinic(&mut *tx, clinic).await?.ok_or_else(|| not_found(clinic))?;
    }
    let inserted = store::calendar::insert_blackout(tx, &blackout).await;
    inserted.map_err(exists(blackout.id, "BLACKOUT_EXISTS"))?;
    tell_blackout(tx, &blackout).await?;
    Ok(encode::blackout(&blackout))
}

/// Removes a blackout.
pub async fn remove_blackout(
    tx: &mut PgConnection,
    id: BlackoutId,
) -> Result<wire::RemoveBlackoutResponse, Error> {
    store::raise_catalog(tx).await?;
    let found = store::calendar::blackout(tx, id).await?.ok_or_else(|| not_found(id))?;
    store::calendar::delete_blackout(tx, id).await?;
    tell_blackout(tx, &found).await?;
    Ok(wire::RemoveBlackoutResponse {})
}

/// Whole days are told as the instants they are at the clinics concerned.
async fn tell_blackout(tx: &mut PgConnection, blackout: &Blackout) -> Result<(), Error> {
    let affected = match &blackout.span {
        BlackoutSpan::Exact(span) => vec![*span],
        BlackoutSpan::Days(_) => {
            let zones = store::catalog::time_zones(tx, blackout.clinic_id).await?;
            zones.into_iter().map(|zone| blackout.at(zone)).collect()
        }
    };
    let change = CalendarChange {
        clinic: blackout.clinic_id,
        affected: affected.into_iter().map(|s| (s.start, Some(s.end))).collect(),
        cause: Cause::Blackout,
        source: blackout.id.uuid(),
    };
    raise(tx, blackout.clinic_id.map_or(Raised::All, Raised::At), &change).await.map(drop)
}

async fn know(tx: &mut PgConnection, provider: ProviderId, clinic: Option<ClinicId>) -> Result<(), Error> {
    store::catalog::provider(&mut *tx, provider).await?.ok_or_else(|| not_found(provider))?;
    if let Some(clinic) = clinic {
        store::catalog::clinic(&mut *tx, clinic).await?.ok_or_else(|| not_found(clinic))?;
    }
    Ok(())
}

/// The version of the one provider that was raised.
fn version_of(raised: &[(ProviderId, i64)]) -> i64 {
    raised.first().map_or(0, |(_, version)| *version)
}

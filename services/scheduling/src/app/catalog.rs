//! Creating and changing what can be booked.

use chrono::{DateTime, Utc};
use kit::ids::{ClinicId, ServiceTypeId};
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::CalendarChangeCause as Cause;
use proto::clinic::scheduling::v1::catalog_changed::Resource;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::catalog::{Clinic, Provider, Room, ServiceType};
use crate::domain::span::minute;
use crate::error::{Error, exists, not_found};
use crate::events::{self, CalendarChange};
use crate::grpc::encode;
use crate::store::{self, Raised};

/// Opens a clinic.
pub async fn create_clinic(tx: &mut PgConnection, clinic: &Clinic) -> Result<wire::Clinic, Error> {
    store::raise_catalog(tx).await?;
    store::catalog::insert_clinic(tx, clinic).await.map_err(exists(clinic.id, "CLINIC_EXISTS"))?;
    let answer = encode::clinic(clinic);
    events::catalog_changed(tx, clinic.id.uuid(), clinic.version, Resource::Clinic(answer.clone())).await?;
    Ok(answer)
}

/// Replaces a clinic; `before` was read under the catalog's lock.
pub async fn update_clinic(
    tx: &mut PgConnection,
    before: &Clinic,
    clinic: &Clinic,
    now: DateTime<Utc>,
) -> Result<wire::Clinic, Error> {
    store::catalog::update_clinic(tx, clinic).await?;
    let answer = encode::clinic(clinic);
    events::catalog_changed(tx, clinic.id.uuid(), clinic.version, Resource::Clinic(answer.clone())).await?;
    if (&before.opening_hours, before.retired) != (&clinic.opening_hours, clinic.retired) {
        let change = from_now(Some(clinic.id), Cause::Clinic, clinic.id.uuid(), now);
        raise(tx, Raised::At(clinic.id), &change).await?;
    }
    Ok(answer)
}

/// Adds a room.
pub async fn create_room(
    tx: &mut PgConnection,
    room: &Room,
    now: DateTime<Utc>,
) -> Result<wire::Room, Error> {
    store::raise_catalog(tx).await?;
    store::catalog::clinic(&mut *tx, room.clinic_id).await?.ok_or_else(|| not_found(room.clinic_id))?;
    store::catalog::insert_room(tx, room).await.map_err(exists(room.id, "ROOM_EXISTS"))?;
    tell_room(tx, room, now).await
}

/// Replaces a room.
pub async fn update_room(
    tx: &mut PgConnection,
    room: &Room,
    now: DateTime<Utc>,
) -> Result<wire::Room, Error> {
    store::catalog::update_room(tx, room).await?;
    tell_room(tx, room, now).await
}

async fn tell_room(tx: &mut PgConnection, room: &Room, now: DateTime<Utc>) -> Result<wire::Room, Error> {
    let answer = encode::room(room);
    events::catalog_changed(tx, room.id.uuid(), room.version, Resource::Room(answer.clone())).await?;
    let change = from_now(Some(room.clinic_id), Cause::Room, room.id.uuid(), now);
    raise(tx, Raised::At(room.clinic_id), &change).await?;
    Ok(answer)
}

/// Adds a provider, with an empty calendar of version 1.
pub async fn create_provider(
    tx: &mut PgConnection,
    provider: &Provider,
    now: DateTime<Utc>,
) -> Result<wire::Provider, Error> {
    store::raise_catalog(tx).await?;
    know_service_types(tx, &provider.service_type_ids).await?;
    store::catalog::insert_provider(tx, provider).await.map_err(exists(provider.id, "PROVIDER_EXISTS"))?;
    tell_provider(tx, provider).await?;
    let change = from_now(None, Cause::Provider, provider.id.uuid(), now);
    events::calendars_changed(tx, &[(provider.id, provider.calendar_version)], &change).await?;
    Ok(encode::provider(provider))
}

/// Replaces a provider; `before` was read under the catalog's lock.
pub async fn update_provider(
    tx: &mut PgConnection,
    before: &Provider,
    mut provider: Provider,
    now: DateTime<Utc>,
) -> Result<wire::Provider, Error> {
    know_service_types(tx, &provider.service_type_ids).await?;
    store::catalog::update_provider(tx, &provider).await?;
    tell_provider(tx, &provider).await?;
    if (&before.service_type_ids, before.retired) != (&provider.service_type_ids, provider.retired) {
        let change = from_now(None, Cause::Provider, provider.id.uuid(), now);
        let raised = raise(tx, Raised::One(provider.id), &change).await?;
        provider.calendar_version = raised.first().map_or(provider.calendar_version, |(_, version)| *version);
    }
    Ok(encode::provider(&provider))
}

async fn tell_provider(tx: &mut PgConnection, provider: &Provider) -> Result<(), Error> {
    let told = wire::Provider { calendar_version: 0, ..encode::provider(provider) };
    Ok(events::catalog_changed(tx, provider.id.uuid(), provider.version, Resource::Provider(told)).await?)
}

async fn know_service_types(tx: &mut PgConnection, ids: &[ServiceTypeId]) -> Result<(), Error> {
    let missing = store::catalog::missing_service_type(tx, ids).await?;
    missing.map_or(Ok(()), |id| Err(not_found(id)))
}

/// Adds a service type.
pub async fn create_service_type(
    tx: &mut PgConnection,
    service: &ServiceType,
) -> Result<wire::ServiceType, Error> {
    store::raise_catalog(tx).await?;
    let inserted = store::catalog::insert_service_type(tx, service).await;
    inserted.map_err(exists(service.id, "SERVICE_TYPE_EXISTS"))?;
    tell_service_type(tx, service).await
}

/// Replaces a service type.
pub async fn update_service_type(
    tx: &mut PgConnection,
    service: &ServiceType,
    now: DateTime<Utc>,
) -> Result<wire::ServiceType, Error> {
    store::catalog::update_service_type(tx, service).await?;
    let change = from_now(None, Cause::ServiceType, service.id.uuid(), now);
    raise(tx, Raised::Offering(service.id), &change).await?;
    tell_service_type(tx, service).await
}

async fn tell_service_type(tx: &mut PgConnection, service: &ServiceType) -> Result<wire::ServiceType, Error> {
    let answer = encode::service_type(service);
    events::catalog_changed(tx, service.id.uuid(), service.version, Resource::ServiceType(answer.clone()))
        .await?;
    Ok(answer)
}

/// A change whose end is open.
fn from_now(clinic: Option<ClinicId>, cause: Cause, source: Uuid, now: DateTime<Utc>) -> CalendarChange {
    CalendarChange { clinic, affected: vec![(minute(now), None)], cause, source }
}

/// Raises calendar versions and tells them.
pub(super) async fn raise(
    tx: &mut PgConnection,
    whose: Raised,
    change: &CalendarChange,
) -> Result<Vec<(kit::ids::ProviderId, i64)>, Error> {
    let raised = store::raise_calendars(tx, whose).await?;
    events::calendars_changed(tx, &raised, change).await?;
    Ok(raised)
}

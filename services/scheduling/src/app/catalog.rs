//! Creating and changing what can be booked.

use kit::ids::ServiceTypeId;
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::CalendarChangeCause as Cause;
use proto::clinic::scheduling::v1::catalog_changed::Resource;
use sqlx::PgConnection;

use super::App;
use super::edit::Edit;
use crate::domain::catalog::{Clinic, Provider, Room, ServiceType};
use crate::domain::span::{Minute, Span};
use crate::error::{Error, exists, not_found};
use crate::events::{CalendarChange, catalog_changed};
use crate::grpc::encode;
use crate::store;

/// Opens a clinic.
pub async fn create_clinic(app: &App, tx: &mut PgConnection, clinic: &Clinic) -> Result<wire::Clinic, Error> {
    let edit = Edit::shared(app, tx).await?;
    store::catalog::insert_clinic(edit.tx, clinic).await.map_err(exists(clinic.id, "CLINIC_EXISTS"))?;
    let answer = tell_clinic(edit.tx, clinic).await?;
    edit.tell_nobody().await?;
    Ok(answer)
}

/// Replaces a clinic.
pub async fn update_clinic(
    mut edit: Edit<'_>,
    before: &Clinic,
    clinic: &Clinic,
) -> Result<wire::Clinic, Error> {
    // Compared only when it may differ: reading it takes a while, and everybody waits.
    let hours = before.retired == clinic.retired && before.opening_hours != clinic.opening_hours;
    let network = if hours { Some(edit.look().await?) } else { None };
    store::catalog::update_clinic(edit.tx, clinic).await?;
    let answer = tell_clinic(edit.tx, clinic).await?;
    let id = clinic.id;
    let change = CalendarChange { clinic: Some(id), cause: Cause::Clinic, source: id.uuid() };
    if before.retired != clinic.retired {
        edit.tell_all(change, Some(id), None).await?;
    } else if let Some(network) = network {
        edit.tell_hours(&network, change, &[Span::new(Minute::MIN, Minute::MAX)]).await?;
    } else {
        edit.tell_nobody().await?;
    }
    Ok(answer)
}

async fn tell_clinic(tx: &mut PgConnection, clinic: &Clinic) -> Result<wire::Clinic, Error> {
    let answer = encode::clinic(clinic);
    catalog_changed(tx, clinic.id.uuid(), clinic.version, Resource::Clinic(answer.clone())).await?;
    Ok(answer)
}

/// Adds a room.
pub async fn create_room(app: &App, tx: &mut PgConnection, room: &Room) -> Result<wire::Room, Error> {
    let mut edit = Edit::shared(app, tx).await?;
    edit.know(Some(room.clinic_id)).await?;
    store::catalog::insert_room(edit.tx, room).await.map_err(exists(room.id, "ROOM_EXISTS"))?;
    tell_room(edit, None, room).await
}

/// Replaces a room.
pub async fn update_room(edit: Edit<'_>, before: &Room, room: &Room) -> Result<wire::Room, Error> {
    store::catalog::update_room(edit.tx, room).await?;
    tell_room(edit, Some(before), room).await
}

async fn tell_room(edit: Edit<'_>, before: Option<&Room>, room: &Room) -> Result<wire::Room, Error> {
    let answer = encode::room(room);
    catalog_changed(edit.tx, room.id.uuid(), room.version, Resource::Room(answer.clone())).await?;
    if before.is_some_and(|b| (&b.features, b.retired) == (&room.features, room.retired)) {
        edit.tell_nobody().await?;
    } else {
        let clinic = room.clinic_id;
        let change = CalendarChange { clinic: Some(clinic), cause: Cause::Room, source: room.id.uuid() };
        edit.tell_all(change, Some(clinic), None).await?;
    }
    Ok(answer)
}

/// Adds a provider, with an empty calendar of version 1.
pub async fn create_provider(
    app: &App,
    tx: &mut PgConnection,
    provider: &Provider,
) -> Result<wire::Provider, Error> {
    let edit = Edit::shared(app, tx).await?;
    know_service_types(edit.tx, &provider.service_type_ids).await?;
    let inserted = store::catalog::insert_provider(edit.tx, provider).await;
    inserted.map_err(exists(provider.id, "PROVIDER_EXISTS"))?;
    tell_provider(edit.tx, provider).await?;
    edit.tell_new(provider.id, provider.calendar_version, changed(provider)).await?;
    Ok(encode::provider(provider))
}

/// Replaces a provider.
pub async fn update_provider(
    edit: Edit<'_>,
    before: &Provider,
    mut provider: Provider,
) -> Result<wire::Provider, Error> {
    know_service_types(edit.tx, &provider.service_type_ids).await?;
    store::catalog::update_provider(edit.tx, &provider).await?;
    tell_provider(edit.tx, &provider).await?;
    if (&before.service_type_ids, before.retired) == (&provider.service_type_ids, provider.retired) {
        edit.tell_nobody().await?;
    } else {
        provider.calendar_version += 1;
        edit.tell_one(provider.id, changed(&provider)).await?;
    }
    Ok(encode::provider(&provider))
}

fn changed(provider: &Provider) -> CalendarChange {
    CalendarChange { clinic: None, cause: Cause::Provider, source: provider.id.uuid() }
}

async fn tell_provider(tx: &mut PgConnection, provider: &Provider) -> Result<(), Error> {
    let told = wire::Provider { calendar_version: 0, ..encode::provider(provider) };
    Ok(catalog_changed(tx, provider.id.uuid(), provider.version, Resource::Provider(told)).await?)
}

async fn know_service_types(tx: &mut PgConnection, ids: &[ServiceTypeId]) -> Result<(), Error> {
    let missing = store::catalog::missing_service_type(tx, ids).await?;
    missing.map_or(Ok(()), |id| Err(not_found(id)))
}

/// Adds a service type.
pub async fn create_service_type(
    app: &App,
    tx: &mut PgConnection,
    service: &ServiceType,
) -> Result<wire::ServiceType, Error> {
    let edit = Edit::shared(app, tx).await?;
    let inserted = store::catalog::insert_service_type(edit.tx, service).await;
    inserted.map_err(exists(service.id, "SERVICE_TYPE_EXISTS"))?;
    let answer = tell_service_type(edit.tx, service).await?;
    edit.tell_nobody().await?;
    Ok(answer)
}

/// Replaces a service type.
pub async fn update_service_type(
    edit: Edit<'_>,
    before: &ServiceType,
    service: &ServiceType,
) -> Result<wire::ServiceType, Error> {
    store::catalog::update_service_type(edit.tx, service).await?;
    let answer = tell_service_type(edit.tx, service).await?;
    if service.offers_the_same_time_as(before) {
        edit.tell_nobody().await?;
    } else {
        let change = CalendarChange { clinic: None, cause: Cause::ServiceType, source: service.id.uuid() };
        edit.tell_all(change, None, Some(service.id)).await?;
    }
    Ok(answer)
}

async fn tell_service_type(tx: &mut PgConnection, service: &ServiceType) -> Result<wire::ServiceType, Error> {
    let answer = encode::service_type(service);
    catalog_changed(tx, service.id.uuid(), service.version, Resource::ServiceType(answer.clone())).await?;
    Ok(answer)
}

//! Clinics, rooms, providers, service types: insert, read, list by name, replace.

use chrono_tz::Tz;
use kit::ids::{ClinicId, FormId, ProviderId, RoomId, ServiceTypeId};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};

use crate::domain::catalog::{Clinic, OpeningHours, Provider, Room, ServiceType};

/// The sort key of every list here: name, then id.
pub type Key = (String, uuid::Uuid);

/// A keyset page by name, and whether retired resources are wanted.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// Key of the last row the caller has.
    pub after: Option<&'a Key>,
    /// Rows to read.
    pub limit: i64,
    /// Also those retired.
    pub retired: bool,
}

impl List<'_> {
    fn after(&self) -> (Option<&str>, Option<uuid::Uuid>) {
        self.after.map(|(name, id)| (name.as_str(), *id)).unzip()
    }
}

struct ClinicRow {
    id: ClinicId,
    name: String,
    time_zone: String,
    opening_hours: Json<Vec<OpeningHours>>,
    phone: String,
    address: String,
    retired: bool,
    version: i64,
}

impl ClinicRow {
    fn clinic(self) -> sqlx::Result<Clinic> {
        Ok(Clinic {
            id: self.id,
            name: self.name,
            time_zone: zone(&self.time_zone)?,
            opening_hours: self.opening_hours.0,
            phone: self.phone,
            address: self.address,
            retired: self.retired,
            version: self.version,
        })
    }
}

/// Adds a clinic.
pub async fn insert_clinic(db: &mut PgConnection, c: &Clinic) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into scheduling.clinic (id, name, time_zone, opening_hours, phone, address, retired, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        c.id as ClinicId,
        c.name,
        c.time_zone.name(),
        Json(&c.opening_hours) as _,
        c.phone,
        c.address,
        c.retired,
        c.version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Replaces what may change of a clinic.
pub async fn update_clinic(db: &mut PgConnection, c: &Clinic) -> sqlx::Result<()> {
    sqlx::query!(
        "update scheduling.clinic set name = $2, opening_hours = $3, phone = $4, address = $5, retired = $6, version = $7
         where id = $1",
        c.id as ClinicId,
        c.name,
        Json(&c.opening_hours) as _,
        c.phone,
        c.address,
        c.retired,
        c.version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Reads one clinic.
pub async fn clinic(db: impl PgExecutor<'_>, id: ClinicId) -> sqlx::Result<Option<Clinic>> {
    sqlx::query_as!(
        ClinicRow,
        r#"select id as "id: ClinicId", name, time_zone, opening_hours as "opening_hours: Json<Vec<OpeningHours>>", phone,
                  address, retired, version
           from scheduling.clinic where id = $1"#,
        id as ClinicId,
    )
    .fetch_optional(db)
    .await?
    .map(ClinicRow::clinic)
    .transpose()
}

/// Lists clinics by name.
pub async fn clinics(db: impl PgExecutor<'_>, list: List<'_>) -> sqlx::Result<Vec<Clinic>> {
    let (name, after) = list.after();
    let rows = sqlx::query_as!(
        ClinicRow,
        r#"select id as "id: ClinicId", name, time_zone, opening_hours as "opening_hours: Json<Vec<OpeningHours>>", phone,
                  address, retired, version
           from scheduling.clinic
           where ($1::text is null or (name, id) > ($1, $2)) and ($3 or not retired)
           order by name, id limit $4"#,
        name,
        after,
        list.retired,
        list.limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(ClinicRow::clinic).collect()
}

/// The time zones of one clinic, or of all.
pub async fn time_zones(db: &mut PgConnection, clinic: Option<ClinicId>) -> sqlx::Result<Vec<Tz>> {
    let names = sqlx::query_scalar!(
        "select distinct time_zone from scheduling.clinic where $1::uuid is null or id = $1",
        clinic as Option<ClinicId>,
    )
    .fetch_all(db)
    .await?;
    names.iter().map(|name| zone(name)).collect()
}

fn zone(name: &str) -> sqlx::Result<Tz> {
    name.parse().map_err(|_| sqlx::Error::Decode(format!("{name:?} is no time zone").into()))
}

/// Adds a room.
pub async fn insert_room(db: &mut PgConnection, r: &Room) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into scheduling.room (id, clinic_id, name, features, retired, version) values ($1, $2, $3, $4, $5, $6)",
        r.id as RoomId,
        r.clinic_id as ClinicId,
        r.name,
        &r.features,
        r.retired,
        r.version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Replaces what may change of a room.
pub async fn update_room(db: &mut PgConnection, r: &Room) -> sqlx::Result<()> {
    sqlx::query!(
        "update scheduling.room set name = $2, features = $3, retired = $4, version = $5 where id = $1",
        r.id as RoomId,
        r.name,
        &r.features,
        r.retired,
        r.version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Reads one room.
pub async fn room(db: impl PgExecutor<'_>, id: RoomId) -> sqlx::Result<Option<Room>> {
    sqlx::query_as!(
        Room,
        r#"select id as "id: RoomId", clinic_id as "clinic_id: ClinicId", name, features, retired, version
           from scheduling.room where id = $1"#,
        id as RoomId,
    )
    .fetch_optional(db)
    .await
}

/// Lists rooms by name.
pub async fn rooms(
    db: impl PgExecutor<'_>,
    list: List<'_>,
    clinic: Option<ClinicId>,
) -> sqlx::Result<Vec<Room>> {
    let (name, after) = list.after();
    sqlx::query_as!(
        Room,
        r#"select id as "id: RoomId", clinic_id as "clinic_id: ClinicId", name, features, retired, version
           from scheduling.room
           where ($1::text is null or (name, id) > ($1, $2)) and ($3 or not retired)
             and ($5::uuid is null or clinic_id = $5)
           order by name, id limit $4"#,
        name,
        after,
        list.retired,
        list.limit,
        clinic as Option<ClinicId>,
    )
    .fetch_all(db)
    .await
}

/// Adds a provider.
pub async fn insert_provider(db: &mut PgConnection, p: &Provider) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into scheduling.provider
             (id, name, specialty, languages, service_type_ids, retired, version, calendar_version)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        p.id as ProviderId,
        p.name,
        p.specialty,
        &p.languages,
        p.service_type_ids.as_slice() as &[ServiceTypeId],
        p.retired,
        p.version,
        p.calendar_version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Replaces what may change of a provider; the calendar version is raised apart.
pub async fn update_provider(db: &mut PgConnection, p: &Provider) -> sqlx::Result<()> {
    sqlx::query!(
        "update scheduling.provider
         set name = $2, specialty = $3, languages = $4, service_type_ids = $5, retired = $6, version = $7
         where id = $1",
        p.id as ProviderId,
        p.name,
        p.specialty,
        &p.languages,
        p.service_type_ids.as_slice() as &[ServiceTypeId],
        p.retired,
        p.version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Reads one provider.
pub async fn provider(db: impl PgExecutor<'_>, id: ProviderId) -> sqlx::Result<Option<Provider>> {
    sqlx::query_as!(
        Provider,
        r#"select id as "id: ProviderId", name, specialty, languages,
                  service_type_ids as "service_type_ids: Vec<ServiceTypeId>", retired, version, calendar_version
           from scheduling.provider where id = $1"#,
        id as ProviderId,
    )
    .fetch_optional(db)
    .await
}

/// Lists providers by name: all, those with a template at `clinic`, those who offer `service`.
pub async fn providers(
    db: impl PgExecutor<'_>,
    list: List<'_>,
    clinic: Option<ClinicId>,
    service: Option<ServiceTypeId>,
) -> sqlx::Result<Vec<Provider>> {
    let (name, after) = list.after();
    sqlx::query_as!(
        Provider,
        r#"select id as "id: ProviderId", name, specialty, languages,
                  service_type_ids as "service_type_ids: Vec<ServiceTypeId>", retired, version, calendar_version
           from scheduling.provider p
           where ($1::text is null or (name, id) > ($1, $2)) and ($3 or not retired)
             and ($5::uuid is null
                  or exists (select from scheduling.weekly_template t where t.provider_id = p.id and t.clinic_id = $5))
             and ($6::uuid is null or service_type_ids = '{}' or $6 = any (service_type_ids))
           order by name, id limit $4"#,
        name,
        after,
        list.retired,
        list.limit,
        clinic as Option<ClinicId>,
        service as Option<ServiceTypeId>,
    )
    .fetch_all(db)
    .await
}

/// Of `ids`, the first that no service type has.
pub async fn missing_service_type(
    db: &mut PgConnection,
    ids: &[ServiceTypeId],
) -> sqlx::Result<Option<ServiceTypeId>> {
    sqlx::query_scalar!(
        r#"select asked as "id!: ServiceTypeId" from unnest($1::uuid[]) asked
           where not exists (select from scheduling.service_type s where s.id = asked) limit 1"#,
        ids as &[ServiceTypeId],
    )
    .fetch_optional(db)
    .await
}

/// Adds a service type.
pub async fn insert_service_type(db: &mut PgConnection, s: &ServiceType) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into scheduling.service_type
             (id, name, description, duration_minutes, buffer_before_minutes, buffer_after_minutes, step_minutes,
              minimum_notice_minutes, booking_horizon_days, room_features, intake_form_id, copay_required, retired, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        s.id as ServiceTypeId,
        s.name,
        s.description,
        s.duration_minutes,
        s.buffer_before_minutes,
        s.buffer_after_minutes,
        s.step_minutes,
        s.minimum_notice_minutes,
        s.booking_horizon_days,
        &s.room_features,
        s.intake_form_id as Option<FormId>,
        s.copay_required,
        s.retired,
        s.version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Replaces what may change of a service type.
pub async fn update_service_type(db: &mut PgConnection, s: &ServiceType) -> sqlx::Result<()> {
    sqlx::query!(
        "update scheduling.service_type
         set name = $2, description = $3, duration_minutes = $4, buffer_before_minutes = $5, buffer_after_minutes = $6,
             step_minutes = $7, minimum_notice_minutes = $8, booking_horizon_days = $9, room_features = $10,
             intake_form_id = $11, copay_required = $12, retired = $13, version = $14
         where id = $1",
        s.id as ServiceTypeId,
        s.name,
        s.description,
        s.duration_minutes,
        s.buffer_before_minutes,
        s.buffer_after_minutes,
        s.step_minutes,
        s.minimum_notice_minutes,
        s.booking_horizon_days,
        &s.room_features,
        s.intake_form_id as Option<FormId>,
        s.copay_required,
        s.retired,
        s.version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Reads one service type.
pub async fn service_type(db: impl PgExecutor<'_>, id: ServiceTypeId) -> sqlx::Result<Option<ServiceType>> {
    sqlx::query_as!(
        ServiceType,
        r#"select id as "id: ServiceTypeId", name, description, duration_minutes, buffer_before_minutes,
                  buffer_after_minutes, step_minutes, minimum_notice_minutes, booking_horizon_days, room_features,
                  intake_form_id as "intake_form_id: FormId", copay_required, retired, version
           from scheduling.service_type where id = $1"#,
        id as ServiceTypeId,
    )
    .fetch_optional(db)
    .await
}

/// Lists service types by name.
pub async fn service_types(db: impl PgExecutor<'_>, list: List<'_>) -> sqlx::Result<Vec<ServiceType>> {
    let (name, after) = list.after();
    sqlx::query_as!(
        ServiceType,
        r#"select id as "id: ServiceTypeId", name, description, duration_minutes, buffer_before_minutes,
                  buffer_after_minutes, step_minutes, minimum_notice_minutes, booking_horizon_days, room_features,
                  intake_form_id as "intake_form_id: FormId", copay_required, retired, version
           from scheduling.service_type
           where ($1::text is null or (name, id) > ($1, $2)) and ($3 or not retired)
           order by name, id limit $4"#,
        name,
        after,
        list.retired,
        list.limit,
    )
    .fetch_all(db)
    .await
}

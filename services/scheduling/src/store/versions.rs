//! The counters that replicas follow and that bookings are checked at.
//!
//! Lock order, for every writer: the catalog row, then providers by id.

use kit::ids::{ClinicId, ProviderId, ServiceTypeId};
use sqlx::{PgConnection, PgExecutor};

/// What a replica compares with what it has. None ever goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of the catalog and the blackouts.
    pub catalog: i64,
    /// Of all calendars: the sum of their versions.
    pub calendars: i64,
    /// Number of the last change to busy time.
    pub busy: i64,
}

/// Reads every counter, in one statement and so in one snapshot.
pub async fn counters(db: impl PgExecutor<'_>) -> sqlx::Result<Counters> {
    sqlx::query_as!(
        Counters,
        r#"select c.version as catalog,
                  (select coalesce(sum(calendar_version), 0)::bigint from scheduling.provider) as "calendars!",
                  (select coalesce(max(changed), 0) from scheduling.busy) as "busy!"
           from scheduling.catalog c"#
    )
    .fetch_one(db)
    .await
}

/// The calendar version of each provider.
pub async fn calendar_versions(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<(ProviderId, i64)>> {
    let rows = sqlx::query!(r#"select id as "id: ProviderId", calendar_version from scheduling.provider"#);
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.id, row.calendar_version)).collect())
}

/// Before one provider's calendar is changed: no shared change comes in between.
pub async fn share_catalog(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select version from scheduling.catalog for share").fetch_one(db).await.map(drop)
}

/// Before anything shared is changed: no calendar and nothing else shared changes in between.
pub async fn lock_catalog(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select version from scheduling.catalog for update").fetch_one(db).await.map(drop)
}

/// Something shared has changed: replicas will read the catalog again.
pub async fn raise_catalog(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("update scheduling.catalog set version = version + 1").execute(db).await.map(drop)
}

/// Who works anywhere, or at `clinic`, by template or extra hours; with `service`, only those who offer it.
pub async fn working(
    db: &mut PgConnection,
    clinic: Option<ClinicId>,
    service: Option<ServiceTypeId>,
) -> sqlx::Result<Vec<ProviderId>> {
    sqlx::query_scalar!(
        r#"select p.id as "id: ProviderId" from scheduling.provider p
           where ($2::uuid is null or p.service_type_ids = '{}' or $2 = any (p.service_type_ids))
             and (exists (select from scheduling.weekly_template t
                          where t.provider_id = p.id and ($1::uuid is null or t.clinic_id = $1))
                  or exists (select from scheduling.exception e
                             where e.provider_id = p.id and e.kind = 'extra_hours' and ($1::uuid is null or e.clinic_id = $1)))"#,
        clinic as Option<ClinicId>,
        service as Option<ServiceTypeId>,
    )
    .fetch_all(db)
    .await
}

/// Keeps other writers of a provider's calendar away, and tells its version; `None` = no such provider.
pub async fn lock_calendar(db: &mut PgConnection, provider: ProviderId) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "select calendar_version from scheduling.provider where id = $1 for update",
        provider as ProviderId,
    )
    .fetch_optional(db)
    .await
}

/// Raises the calendar versions of these providers, under their row locks, and tells the new ones.
pub async fn raise_calendars(
    db: &mut PgConnection,
    providers: &[ProviderId],
) -> sqlx::Result<Vec<(ProviderId, i64)>> {
    let rows = sqlx::query!(
        r#"with concerned as (
               select id from scheduling.provider where id = any ($1) order by id for update
           )
           update scheduling.provider p set calendar_version = p.calendar_version + 1
           from concerned where p.id = concerned.id
           returning p.id as "id: ProviderId", p.calendar_version"#,
        providers as &[ProviderId],
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.calendar_version)).collect())
}

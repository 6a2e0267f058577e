//! Weekly templates, exceptions, blackouts.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ids::{BlackoutId, ClinicId, ExceptionId, ProviderId, WeeklyTemplateId};
use sqlx::{PgConnection, PgExecutor};

use super::{catalog, minute_of_day, small, span};
use crate::domain::calendar::{Blackout, BlackoutSpan, Exception, ExceptionKind, WeeklyTemplate};
use crate::domain::rule::Rule;
use crate::domain::span::{Span, instant};
use crate::domain::{Days, shift, zone};

struct TemplateRow {
    id: WeeklyTemplateId,
    provider_id: ProviderId,
    clinic_id: ClinicId,
    rule: String,
    start_minute: i16,
    end_minute: i16,
    first_date: Option<NaiveDate>,
    last_date: Option<NaiveDate>,
    calendar_version: i64,
    version: i64,
}

impl TemplateRow {
    fn template(self) -> sqlx::Result<WeeklyTemplate> {
        let broken = |e: String| sqlx::Error::Decode(format!("weekly template {}: {e}", self.id).into());
        Ok(WeeklyTemplate {
            id: self.id,
            provider_id: self.provider_id,
            clinic_id: self.clinic_id,
            rule: Rule::parse(&self.rule).map_err(broken)?,
            start_minute: minute_of_day(self.start_minute),
            end_minute: minute_of_day(self.end_minute),
            first_date: self.first_date,
            last_date: self.last_date,
            calendar_version: self.calendar_version,
            version: self.version,
        })
    }
}

/// Adds a template, or replaces the state before it; false when another state stands there.
pub async fn put_template(db: &mut PgConnection, t: &WeeklyTemplate) -> sqlx::Result<bool> {
    let put = sqlx::query!(
        "insert into scheduling.weekly_template
             (id, provider_id, clinic_id, rule, start_minute, end_minute, first_date, last_date, calendar_version, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (id) do update
         set clinic_id = $3, rule = $4, start_minute = $5, end_minute = $6, first_date = $7, last_date = $8,
             calendar_version = $9, version = $10
         where weekly_template.provider_id = $2 and weekly_template.version = $10 - 1",
        t.id as WeeklyTemplateId,
        t.provider_id as ProviderId,
        t.clinic_id as ClinicId,
        t.rule.text(),
        small(t.start_minute),
        small(t.end_minute),
        t.first_date,
        t.last_date,
        t.calendar_version,
        t.version,
    )
    .execute(db)
    .await?;
    Ok(put.rows_affected() == 1)
}

/// Reads one template.
pub async fn template(db: &mut PgConnection, id: WeeklyTemplateId) -> sqlx::Result<Option<WeeklyTemplate>> {
    sqlx::query_as!(
        TemplateRow,
        r#"select id as "id: WeeklyTemplateId", provider_id as "provider_id: ProviderId",
                  clinic_id as "clinic_id: ClinicId", rule, start_minute, end_minute, first_date, last_date,
                  calendar_version, version
           from scheduling.weekly_template where id = $1"#,
        id as WeeklyTemplateId,
    )
    .fetch_optional(db)
    .await?
    .map(TemplateRow::template)
    .transpose()
}

/// Lists templates by (provider, id).
pub async fn templates(
    db: impl PgExecutor<'_>,
    provider: Option<ProviderId>,
    clinic: Option<ClinicId>,
    after: Option<(ProviderId, WeeklyTemplateId)>,
    limit: i64,
) -> sqlx::Result<Vec<WeeklyTemplate>> {
    let (after_provider, after_id) = after.unzip();
    let rows = sqlx::query_as!(
        TemplateRow,
        r#"select id as "id: WeeklyTemplateId", provider_id as "provider_id: ProviderId",
                  clinic_id as "clinic_id: ClinicId", rule, start_minute, end_minute, first_date, last_date,
                  calendar_version, version
           from scheduling.weekly_template
           where ($1::uuid is null or provider_id = $1) and ($2::uuid is null or clinic_id = $2)
             and ($3::uuid is null or (provider_id, id) > ($3, $4::uuid))
           order by provider_id, id limit $5"#,
        provider as Option<ProviderId>,
        clinic as Option<ClinicId>,
        after_provider as Option<ProviderId>,
        after_id as Option<WeeklyTemplateId>,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(TemplateRow::template).collect()
}

/// All templates of these providers.
pub async fn templates_of(
    db: impl PgExecutor<'_>,
    providers: &[ProviderId],
) -> sqlx::Result<Vec<WeeklyTemplate>> {
    let rows = sqlx::query_as!(
        TemplateRow,
        r#"select id as "id: WeeklyTemplateId", provider_id as "provider_id: ProviderId",
                  clinic_id as "clinic_id: ClinicId", rule, start_minute, end_minute, first_date, last_date,
                  calendar_version, version
           from scheduling.weekly_template where provider_id = any ($1)"#,
        providers as &[ProviderId],
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(TemplateRow::template).collect()
}

/// Deletes a template.
pub async fn delete_template(db: &mut PgConnection, id: WeeklyTemplateId) -> sqlx::Result<()> {
    sqlx::query!("delete from scheduling.weekly_template where id = $1", id as WeeklyTemplateId)
        .execute(db)
        .await
        .map(drop)
}

struct ExceptionRow {
    id: ExceptionId,
    provider_id: ProviderId,
    clinic_id: Option<ClinicId>,
    kind: ExceptionKind,
    start_time: DateTime<Utc>,
    end_time: DateTime<Utc>,
    cause: i32,
    calendar_version: i64,
}

impl From<ExceptionRow> for Exception {
    fn from(row: ExceptionRow) -> Self {
        Self {
            id: row.id,
            provider_id: row.provider_id,
            clinic_id: row.clinic_id,
            kind: row.kind,
            span: span(row.start_time, row.end_time),
            cause: row.cause,
            calendar_version: row.calendar_version,
        }
    }
}

/// Adds an exception.
pub async fn insert_exception(db: &mut PgConnection, e: &Exception) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into scheduling.exception (id, provider_id, clinic_id, kind, start_time, end_time, cause, calendar_version)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        e.id as ExceptionId,
        e.provider_id as ProviderId,
        e.clinic_id as Option<ClinicId>,
        e.kind as ExceptionKind,
        instant(e.span.start),
        instant(e.span.end),
        e.cause,
        e.calendar_version,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Reads one exception.
pub async fn exception(db: &mut PgConnection, id: ExceptionId) -> sqlx::Result<Option<Exception>> {
    let row = sqlx::query_as!(
        ExceptionRow,
        r#"select id as "id: ExceptionId", provider_id as "provider_id: ProviderId", clinic_id as "clinic_id: ClinicId",
                  kind as "kind: ExceptionKind", start_time, end_time, cause, calendar_version
           from scheduling.exception where id = $1"#,
        id as ExceptionId,
    );
    Ok(row.fetch_optional(db).await?.map(Exception::from))
}

/// Which exceptions are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExceptionFilter {
    /// Only this provider's.
    pub provider: Option<ProviderId>,
    /// Only those that apply at this clinic.
    pub clinic: Option<ClinicId>,
    /// Only this kind.
    pub kind: Option<ExceptionKind>,
    /// Only those that end after this instant.
    pub ends_after: Option<DateTime<Utc>>,
    /// Only those that start before this instant.
    pub starts_before: Option<DateTime<Utc>>,
}

/// Lists exceptions by (start, id).
pub async fn exceptions(
    db: impl PgExecutor<'_>,
    filter: ExceptionFilter,
    after: Option<(DateTime<Utc>, ExceptionId)>,
    limit: i64,
) -> sqlx::Result<Vec<Exception>> {
    let (after_start, after_id) = after.unzip();
    let rows = sqlx::query_as!(
        ExceptionRow,
        r#"select id as "id: ExceptionId", provider_id as "provider_id: ProviderId", clinic_id as "clinic_id: ClinicId",
                  kind as "kind: ExceptionKind", start_time, end_time, cause, calendar_version
           from scheduling.exception
           where ($1::uuid is null or provider_id = $1)
             and ($2::uuid is null or clinic_id is null or clinic_id = $2)
             and ($3::scheduling.exception_kind is null or kind = $3)
             and ($4::timestamptz is null or end_time > $4)
             and ($5::timestamptz is null or start_time < $5)
             and ($6::timestamptz is null or (start_time, id) > ($6, $7::uuid))
           order by start_time, id limit $8"#,
        filter.provider as Option<ProviderId>,
        filter.clinic as Option<ClinicId>,
        filter.kind as Option<ExceptionKind>,
        filter.ends_after,
        filter.starts_before,
        after_start,
        after_id as Option<ExceptionId>,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Exception::from).collect())
}

/// All exceptions of these providers that end after `since`.
pub async fn exceptions_of(
    db: impl PgExecutor<'_>,
    providers: &[ProviderId],
    since: DateTime<Utc>,
) -> sqlx::Result<Vec<Exception>> {
    let rows = sqlx::query_as!(
        ExceptionRow,
        r#"select id as "id: ExceptionId", provider_id as "provider_id: ProviderId", clinic_id as "clinic_id: ClinicId",
                  kind as "kind: ExceptionKind", start_time, end_time, cause, calendar_version
           from scheduling.exception where provider_id = any ($1) and end_time > $2"#,
        providers as &[ProviderId],
        since,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Exception::from).collect())
}

/// Deletes an exception; false when it was gone.
pub async fn delete_exception(db: &mut PgConnection, id: ExceptionId) -> sqlx::Result<bool> {
    let gone =
        sqlx::query!("delete from scheduling.exception where id = $1", id as ExceptionId).execute(db).await?;
    Ok(gone.rows_affected() == 1)
}

struct BlackoutRow {
    id: BlackoutId,
    position: i64,
    clinic_id: Option<ClinicId>,
    name: String,
    first_date: Option<NaiveDate>,
    last_date: Option<NaiveDate>,
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
}

impl BlackoutRow {
    /// With its place in the order of adding.
    fn blackout(self) -> sqlx::Result<(i64, Blackout)> {
        let days = self.first_date.zip(self.last_date).map(|(first, last)| BlackoutSpan::Days(first..=last));
        let exact =
            self.start_time.zip(self.end_time).map(|(start, end)| BlackoutSpan::Exact(span(start, end)));
        let span = days.or(exact).ok_or_else(|| sqlx::Error::Decode("a blackout without a span".into()))?;
        Ok((self.position, Blackout { id: self.id, clinic_id: self.clinic_id, name: self.name, span }))
    }
}

/// Adds a blackout.
pub async fn insert_blackout(db: &mut PgConnection, b: &Blackout) -> sqlx::Result<()> {
    let (days, exact): (Option<&Days>, Option<Span>) = match &b.span {
        BlackoutSpan::Days(days) => (Some(days), None),
        BlackoutSpan::Exact(span) => (None, Some(*span)),
    };
    sqlx::query!(
        "insert into scheduling.blackout (id, clinic_id, name, first_date, last_date, start_time, end_time)
         values ($1, $2, $3, $4, $5, $6, $7)",
        b.id as BlackoutId,
        b.clinic_id as Option<ClinicId>,
        b.name,
        days.map(|d| *d.start()),
        days.map(|d| *d.end()),
        exact.map(|s| instant(s.start)),
        exact.map(|s| instant(s.end)),
    )
    .execute(db)
    .await
    .map(drop)
}

/// Reads one blackout.
pub async fn blackout(db: &mut PgConnection, id: BlackoutId) -> sqlx::Result<Option<Blackout>> {
    let row = sqlx::query_as!(
        BlackoutRow,
        r#"select id as "id: BlackoutId", position, clinic_id as "clinic_id: ClinicId", name, first_date, last_date,
                  start_time, end_time
           from scheduling.blackout where id = $1"#,
        id as BlackoutId,
    );
    Ok(row.fetch_optional(db).await?.map(BlackoutRow::blackout).transpose()?.map(|(_, blackout)| blackout))
}

/// Lists blackouts in the order they were added: those that close `clinic`, those that meet `days` there, or without a clinic in
/// some time zone.
pub async fn blackouts(
    db: &mut PgConnection,
    clinic: Option<ClinicId>,
    days: Option<&Days>,
    after: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<(i64, Blackout)>> {
    let zones = if clinic.is_some() { catalog::time_zones(db, clinic).await? } else { vec![] };
    let met = days.map(|days| match zones.first() {
        Some(zone) => zone::whole_days(*zone, days),
        // No clock is a whole day away from UTC.
        None => zone::whole_days(Tz::UTC, &(shift(*days.start(), -1)..=shift(*days.end(), 1))),
    });
    let rows = sqlx::query_as!(
        BlackoutRow,
        r#"select id as "id: BlackoutId", position, clinic_id as "clinic_id: ClinicId", name, first_date, last_date,
                  start_time, end_time
           from scheduling.blackout
           where ($1::uuid is null or clinic_id is null or clinic_id = $1)
             and ($2::date is null or last_date >= $2 or end_time > $3)
             and ($4::date is null or first_date <= $4 or start_time < $5)
             and ($6::bigint is null or position > $6)
           order by position limit $7"#,
        clinic as Option<ClinicId>,
        days.map(|d| *d.start()),
        met.map(|span| instant(span.start)),
        days.map(|d| *d.end()),
        met.map(|span| instant(span.end)),
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(BlackoutRow::blackout).collect()
}

/// Deletes a blackout.
pub async fn delete_blackout(db: &mut PgConnection, id: BlackoutId) -> sqlx::Result<()> {
    sqlx::query!("delete from scheduling.blackout where id = $1", id as BlackoutId)
        .execute(db)
        .await
        .map(drop)
}

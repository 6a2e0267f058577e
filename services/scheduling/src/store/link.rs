//! Links under which calendars are published, and the key that signs them.

use chrono::{DateTime, Utc};
use kit::ids::{CalendarLinkId, ClinicId, ProviderId};
use sqlx::{PgConnection, PgExecutor};

use crate::domain::link::{Key, Link, Subject};

struct Row {
    id: CalendarLinkId,
    provider_id: Option<ProviderId>,
    clinic_id: Option<ClinicId>,
    create_time: DateTime<Utc>,
    revoke_time: Option<DateTime<Utc>>,
}

impl Row {
    fn link(self) -> sqlx::Result<Link> {
        let provider = self.provider_id.map(Subject::Provider);
        let subject = provider.or(self.clinic_id.map(Subject::Clinic));
        let subject = subject.ok_or_else(|| sqlx::Error::Decode("a calendar link to nothing".into()))?;
        Ok(Link { id: self.id, subject, create_time: self.create_time, revoke_time: self.revoke_time })
    }
}

/// Reads the key, which the schema made.
pub async fn key(db: impl PgExecutor<'_>) -> sqlx::Result<Key> {
    sqlx::query_scalar!("select key from scheduling.calendar_link_key").fetch_one(db).await.map(Key::from)
}

/// Adds a link that works, and reads it as it is kept.
pub async fn insert(
    db: &mut PgConnection,
    id: CalendarLinkId,
    subject: Subject,
    now: DateTime<Utc>,
) -> sqlx::Result<Link> {
    let (provider, clinic) = match subject {
        Subject::Provider(id) => (Some(id), None),
        Subject::Clinic(id) => (None, Some(id)),
    };
    sqlx::query_as!(
        Row,
        r#"insert into scheduling.calendar_link (id, provider_id, clinic_id, create_time) values ($1, $2, $3, $4)
           returning id as "id: CalendarLinkId", provider_id as "provider_id: ProviderId",
                     clinic_id as "clinic_id: ClinicId", create_time, revoke_time"#,
        id as CalendarLinkId,
        provider as Option<ProviderId>,
        clinic as Option<ClinicId>,
        now,
    )
    .fetch_one(db)
    .await?
    .link()
}

/// Reads one link.
pub async fn link(db: impl PgExecutor<'_>, id: CalendarLinkId) -> sqlx::Result<Option<Link>> {
    sqlx::query_as!(
        Row,
        r#"select id as "id: CalendarLinkId", provider_id as "provider_id: ProviderId",
                  clinic_id as "clinic_id: ClinicId", create_time, revoke_time
           from scheduling.calendar_link where id = $1"#,
        id as CalendarLinkId,
    )
    .fetch_optional(db)
    .await?
    .map(Row::link)
    .transpose()
}

/// Lists links by id, which is the order they were made in.
pub async fn links(
    db: impl PgExecutor<'_>,
    provider: Option<ProviderId>,
    clinic: Option<ClinicId>,
    after: Option<CalendarLinkId>,
    limit: i64,
) -> sqlx::Result<Vec<Link>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id as "id: CalendarLinkId", provider_id as "provider_id: ProviderId",
                  clinic_id as "clinic_id: ClinicId", create_time, revoke_time
           from scheduling.calendar_link
           where ($1::uuid is null or provider_id = $1) and ($2::uuid is null or clinic_id = $2)
             and ($3::uuid is null or id > $3)
           order by id limit $4"#,
        provider as Option<ProviderId>,
        clinic as Option<ClinicId>,
        after as Option<CalendarLinkId>,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Row::link).collect()
}

/// Revokes a link at `now`, unless it was before, and reads it; `None` = no such link.
pub async fn revoke(
    db: &mut PgConnection,
    id: CalendarLinkId,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Link>> {
    sqlx::query_as!(
        Row,
        r#"update scheduling.calendar_link set revoke_time = coalesce(revoke_time, $2) where id = $1
           returning id as "id: CalendarLinkId", provider_id as "provider_id: ProviderId",
                     clinic_id as "clinic_id: ClinicId", create_time, revoke_time"#,
        id as CalendarLinkId,
        now,
    )
    .fetch_optional(db)
    .await?
    .map(Row::link)
    .transpose()
}

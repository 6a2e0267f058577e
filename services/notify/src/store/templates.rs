//! Words that somebody set.

use chrono::{DateTime, Utc};
use proto::clinic::notify::v1::{Channel, MessageKind};
use sqlx::PgConnection;

/// One kind's words in one channel and language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What for.
    pub kind: MessageKind,
    /// SMS or e-mail.
    pub channel: Channel,
    /// BCP 47.
    pub language: String,
    /// Subject of an e-mail.
    pub subject: String,
    /// The pattern; empty = back to the built-in words.
    pub body: String,
    /// Counts the changes, from 1.
    pub version: i32,
    /// When last changed.
    pub update_time: DateTime<Utc>,
    /// By whom.
    pub updated_by: String,
}

/// Every template there is.
pub async fn all(conn: &mut PgConnection) -> sqlx::Result<Vec<Stored>> {
    let rows = sqlx::query!(
        "select kind, channel, language, subject, body, version, update_time, updated_by from notify.template"
    )
    .fetch_all(conn)
    .await?;
    let stored = rows.into_iter().map(|row| Stored {
        kind: MessageKind::from_str_name(&row.kind).unwrap_or_default(),
        channel: Channel::from_str_name(&row.channel).unwrap_or_default(),
        language: row.language,
        subject: row.subject,
        body: row.body,
        version: row.version,
        update_time: row.update_time,
        updated_by: row.updated_by,
    });
    Ok(stored.collect())
}

/// Writes a template unless it has changed from `before` (0 = there was none); answers whether it had not.
pub async fn put(tx: &mut PgConnection, stored: &Stored, before: i32) -> sqlx::Result<bool> {
    let put = sqlx::query!(
        "insert into notify.template as t
            (kind, channel, language, subject, body, version, update_time, updated_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (kind, channel, language) do update
         set subject = excluded.subject, body = excluded.body, version = excluded.version,
             update_time = excluded.update_time, updated_by = excluded.updated_by
         where t.version = $9",
        stored.kind.as_str_name(),
        stored.channel.as_str_name(),
        stored.language,
        stored.subject,
        stored.body,
        stored.version,
        stored.update_time,
        stored.updated_by,
        before,
    )
    .execute(tx)
    .await?;
    Ok(put.rows_affected() == 1)
}

/// The version of a template; 0 = nobody ever set it.
pub async fn version(
    conn: &mut PgConnection,
    kind: MessageKind,
    channel: Channel,
    language: &str,
) -> sqlx::Result<i32> {
    let version = sqlx::query_scalar!(
        "select version from notify.template where kind = $1 and channel = $2 and language = $3",
        kind.as_str_name(),
        channel.as_str_name(),
        language
    )
    .fetch_optional(conn)
    .await?;
    Ok(version.unwrap_or(0))
}

//! E-mails on their way. Claims are leases, as the dispatcher's are.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, MessageId, PatientId};
use proto::clinic::notify::v1::{DropReason, FailureReason, MessageKind};
use sqlx::{PgConnection, PgPool};

/// An e-mail in this process's hands.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Its id.
    pub id: MessageId,
    /// Whom.
    pub patient: PatientId,
    /// The visit it is about.
    pub appointment: Option<AppointmentId>,
    /// The version of the visit that it speaks of; 0 = it does not depend on one.
    pub appointment_version: i64,
    /// What it is about.
    pub kind: MessageKind,
    /// Its subject.
    pub subject: String,
    /// Its words.
    pub body: String,
    /// Tries that failed so far.
    pub tries: i32,
    /// The lease.
    pub lease: DateTime<Utc>,
}

/// Claims up to `limit` e-mails for `lease`, and counts the attempt.
pub async fn claim(pool: &PgPool, limit: i64, lease: Duration) -> sqlx::Result<Vec<Mail>> {
    let rows = sqlx::query!(
        r#"with due as (
               select id from notify.message
               where channel = 'CHANNEL_EMAIL' and state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING')
                 and next_try <= clock.now()
               order by next_try
               limit $1
               for update skip locked
           )
           update notify.message m
           set state = 'MESSAGE_STATE_SENDING', attempts = attempts + 1,
               next_try = clock.now() + make_interval(secs => $2)
           from due where m.id = due.id
           returning m.id, m.patient_id as "patient_id!", m.appointment_id, m.appointment_version, m.kind, m.subject,
                     m.body, m.tries, m.next_try as "next_try!""#,
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(pool)
    .await?;
    let mails = rows.into_iter().map(|row| Mail {
        id: row.id.into(),
        patient: row.patient_id.into(),
        appointment: row.appointment_id.map(Into::into),
        appointment_version: row.appointment_version,
        kind: MessageKind::from_str_name(&row.kind).unwrap_or_default(),
        subject: row.subject,
        body: row.body,
        tries: row.tries,
        lease: row.next_try,
    });
    Ok(mails.collect())
}

/// The relay took an e-mail. Answers the message's version; `None` when the lease was lost.
pub async fn taken(tx: &mut PgConnection, mail: &Mail, now: DateTime<Utc>) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "update notify.message
         set state = 'MESSAGE_STATE_SENT', send_time = $3, update_time = $3, next_try = null, version = version + 1
         where id = $1 and next_try = $2
         returning version",
        mail.id.uuid(),
        mail.lease,
        now
    )
    .fetch_optional(tx)
    .await
}

/// The relay refused an e-mail for good. Answers the message's version; `None` when the lease was lost.
pub async fn refused(
    tx: &mut PgConnection,
    mail: &Mail,
    (reason, code): (FailureReason, &str),
    now: DateTime<Utc>,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "update notify.message
         set state = 'MESSAGE_STATE_FAILED', failure_reason = $3, provider_error_code = $4, update_time = $5,
             next_try = null, version = version + 1
         where id = $1 and next_try = $2
         returning version",
        mail.id.uuid(),
        mail.lease,
        reason.as_str_name(),
        code,
        now
    )
    .fetch_optional(tx)
    .await
}

/// Tries an e-mail again after `wait`.
pub async fn try_later(pool: &PgPool, mail: &Mail, wait: Duration, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.message
         set state = 'MESSAGE_STATE_QUEUED', next_try = clock.now() + make_interval(secs => $3), tries = tries + 1,
             update_time = $4
         where id = $1 and next_try = $2",
        mail.id.uuid(),
        mail.lease,
        wait.as_secs_f64(),
        now
    )
    .execute(pool)
    .await
    .map(drop)
}

/// An e-mail is not sent.
pub async fn dropped(pool: &PgPool, mail: &Mail, reason: DropReason, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.message
         set state = 'MESSAGE_STATE_DROPPED', drop_reason = $3, update_time = $4, next_try = null
         where id = $1 and next_try = $2",
        mail.id.uuid(),
        mail.lease,
        reason.as_str_name(),
        now
    )
    .execute(pool)
    .await
    .map(drop)
}

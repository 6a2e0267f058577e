//! Who wants no texts, by number. A number is known here by its keyed hash alone.

use std::ops::Deref;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kit::ids::{MessageId, PatientId};
use sha2::Sha256;
use sqlx::{PgConnection, PgPool};

/// A phone number's keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NumberHash([u8; 32]);

impl NumberHash {
    /// As a table has it.
    pub fn read(bytes: &[u8]) -> sqlx::Result<Self> {
        bytes.try_into().map(Self).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }
}

impl Deref for NumberHash {
    type Target = [u8; 32];

    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The key that numbers are hashed with.
#[derive(Clone)]
pub struct NumberKey(Vec<u8>);

impl NumberKey {
    /// The key that all replicas share.
    pub async fn read(pool: &PgPool) -> sqlx::Result<Self> {
        sqlx::query_scalar!("select key from notify.number_key").fetch_one(pool).await.map(Self)
    }

    /// The hash of a number in E.164.
    pub fn hash(&self, number: &str) -> NumberHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(number.as_bytes());
        NumberHash(mac.finalize().into_bytes().into())
    }
}

/// Notes what a number says about texts, unless it said something newer.
pub async fn decide(
    tx: &mut PgConnection,
    number: NumberHash,
    opted_out: bool,
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notify.opt_out (number_hash, opted_out, decide_time) values ($1, $2, $3)
         on conflict (number_hash) do update set opted_out = excluded.opted_out, decide_time = excluded.decide_time
         where opt_out.decide_time <= excluded.decide_time",
        number.as_slice(),
        opted_out,
        at
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Those of the numbers that want no texts.
pub async fn among(pool: &PgPool, numbers: &[NumberHash]) -> sqlx::Result<Vec<NumberHash>> {
    let numbers: Vec<Vec<u8>> = numbers.iter().map(|number| number.to_vec()).collect();
    let found = sqlx::query_scalar!(
        "select number_hash from notify.opt_out where opted_out and number_hash = any($1)",
        &numbers
    )
    .fetch_all(pool)
    .await?;
    found.iter().map(|hash| NumberHash::read(hash)).collect()
}

/// A text that the provider refused because its recipient had opted out there, in this process's hands.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The text.
    pub message: MessageId,
    /// To whom it was; `None` = to a number that belongs to nobody.
    pub patient: Option<PatientId>,
    /// The provider's error code.
    pub code: String,
    /// When it was refused.
    pub at: DateTime<Utc>,
    /// Tries to tell it that failed so far.
    pub tries: i32,
    /// The lease.
    pub lease: DateTime<Utc>,
}

/// Claims up to `limit` refusals that patients has not heard of, for `lease`.
pub async fn claim_refused(pool: &PgPool, limit: i64, lease: Duration) -> sqlx::Result<Vec<Refused>> {
    let rows = sqlx::query!(
        r#"with due as (
               select id from notify.message
               where failure_reason = 'FAILURE_REASON_OPTED_OUT' and next_try <= clock.now()
               order by next_try limit $1 for update skip locked
           )
           update notify.message m set next_try = clock.now() + make_interval(secs => $2)
           from due where m.id = due.id
           returning m.id, m.patient_id, m.provider_error_code, m.update_time, m.tries, m.next_try as "next_try!""#,
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(pool)
    .await?;
    let refused = rows.into_iter().map(|row| Refused {
        message: row.id.into(),
        patient: row.patient_id.map(Into::into),
        code: row.provider_error_code,
        at: row.update_time,
        tries: row.tries,
        lease: row.next_try,
    });
    Ok(refused.collect())
}

/// Tells of a claimed refusal again after `wait`; `None` = patients has heard of it.
pub async fn tell_again(pool: &PgPool, refused: &Refused, wait: Option<Duration>) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.message set next_try = clock.now() + make_interval(secs => $3), tries = tries + 1
         where id = $1 and next_try = $2",
        refused.message.uuid(),
        refused.lease,
        wait.map(|wait| wait.as_secs_f64()),
    )
    .execute(pool)
    .await
    .map(drop)
}

//! Texts received: kept once, claimed by a worker, and what they may be about.
//!
//! A claim is a lease, as with reminders: its holder asks for it before every later change.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ClinicId, MessageId, PatientId};
use proto::clinic::notify::v1::{MessageState, ReplyMeaning};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::opt_out::NumberHash;
use crate::domain::notice::Alternative;

/// Whether a text is kept already. The answer stands until the transaction ends.
pub async fn is_known(tx: &mut PgConnection, reference: &str) -> sqlx::Result<bool> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", reference)
        .execute(&mut *tx)
        .await?;
    let known = sqlx::query_scalar!(
        r#"select exists (select from notify.message where provider_reference = $1) as "known!""#,
        reference
    );
    known.fetch_one(tx).await
}

/// Keeps a text whose message has been written, for the worker.
pub async fn insert(
    tx: &mut PgConnection,
    message: MessageId,
    number: NumberHash,
    meaning: Option<ReplyMeaning>,
    answered: bool,
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notify.inbound (message_id, number_hash, receive_time, meaning, answered, next_try)
         values ($1, $2, $3, $4, $5, clock.now())",
        message.uuid(),
        number.as_slice(),
        at,
        meaning.map(|meaning| meaning.as_str_name()),
        answered,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// A text received, in this process's hands.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Its message.
    pub message: MessageId,
    /// The provider's id.
    pub reference: String,
    /// Its words.
    pub body: String,
    /// From whom.
    pub number: NumberHash,
    /// When it came.
    pub receive_time: DateTime<Utc>,
    /// The provider has answered it by itself.
    pub answered: bool,
    /// What it was taken for; `None` = not decided yet.
    pub decision: Option<Decision>,
    /// Tries that failed so far.
    pub tries: i32,
    /// The lease.
    pub lease: DateTime<Utc>,
}

/// What a text was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What it means.
    pub meaning: ReplyMeaning,
    /// Which of the digits offered; 0 = none was offered.
    pub choice: i32,
    /// From whom, where that is clear.
    pub patient: Option<PatientId>,
    /// About which visit, where that is clear.
    pub appointment: Option<AppointmentId>,
    /// The waitlist offer that it answers.
    pub offer: Option<Uuid>,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
}

impl Decision {
    /// One that is about no visit.
    pub fn plain(meaning: ReplyMeaning) -> Self {
        Self { meaning, choice: 0, patient: None, appointment: None, offer: None, in_reply_to: None }
    }
}

/// Claims up to `limit` texts to act on, for `lease`.
pub async fn claim(pool: &PgPool, limit: i64, lease: Duration) -> sqlx::Result<Vec<Claimed>> {
    let rows = sqlx::query!(
        r#"with due as (
               select message_id from notify.inbound where next_try <= clock.now()
               order by next_try limit $1 for update skip locked
           )
           update notify.inbound i set next_try = clock.now() + make_interval(secs => $2)
           from due, notify.message m
           where i.message_id = due.message_id and m.id = i.message_id
           returning i.message_id, m.provider_reference as "reference!", m.body, i.number_hash, i.receive_time, i.answered,
                     i.meaning, i.choice, i.offer_id, m.patient_id, m.appointment_id, m.in_reply_to_id, i.tries,
                     i.next_try as "next_try!""#,
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(pool)
    .await?;
    let claimed = rows.into_iter().map(|row| {
        let meaning = row.meaning.as_deref().and_then(ReplyMeaning::from_str_name);
        let decision = meaning.map(|meaning| Decision {
            meaning,
            choice: row.choice,
            patient: row.patient_id.map(Into::into),
            appointment: row.appointment_id.map(Into::into),
            offer: row.offer_id,
            in_reply_to: row.in_reply_to_id.map(Into::into),
        });
        Ok(Claimed {
            message: row.message_id.into(),
            reference: row.reference,
            body: row.body,
            number: NumberHash::read(&row.number_hash)?,
            receive_time: row.receive_time,
            answered: row.answered,
            decision,
            tries: row.tries,
            lease: row.next_try,
        })
    });
    claimed.collect()
}

/// Locks a claimed text until the transaction ends; false when the lease was lost.
pub async fn hold(tx: &mut PgConnection, claimed: &Claimed) -> sqlx::Result<bool> {
    let held = sqlx::query_scalar!(
        "select 1 from notify.inbound where message_id = $1 and next_try = $2 for update",
        claimed.message.uuid(),
        claimed.lease,
    )
    .fetch_optional(tx)
    .await?;
    Ok(held.is_some())
}

/// Notes what a held text was taken for.
pub async fn decide(
    tx: &mut PgConnection,
    message: MessageId,
    decision: &Decision,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "with decided as (
             update notify.inbound set meaning = $2, choice = $3, offer_id = $4 where message_id = $1
         )
         update notify.message set patient_id = notify.survivor($5), appointment_id = $6, in_reply_to_id = $7, update_time = $8
         where id = $1",
        message.uuid(),
        decision.meaning.as_str_name(),
        decision.choice,
        decision.offer,
        decision.patient.map(Uuid::from),
        decision.appointment.map(Uuid::from),
        decision.in_reply_to.map(Uuid::from),
        now,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Looks at a held text again after `wait`; `None` = never again.
pub async fn next(tx: &mut PgConnection, message: MessageId, wait: Option<Duration>) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.inbound set next_try = clock.now() + make_interval(secs => $2), tries = tries + 1
         where message_id = $1",
        message.uuid(),
        wait.map(|wait| wait.as_secs_f64()),
    )
    .execute(tx)
    .await
    .map(drop)
}

/// A visit to come that its patient was reminded of, or one that was offered.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which; an offer is the appointment that holds its time.
    pub appointment: AppointmentId,
    /// Whose.
    pub patient: PatientId,
    /// Where.
    pub clinic: ClinicId,
    /// When.
    pub start: DateTime<Utc>,
    /// The clinic's time zone.
    pub zone: Tz,
    /// The newest text about it.
    pub message: MessageId,
    /// When that was made.
    pub at: DateTime<Utc>,
}

/// The visits after `now` that these patients were reminded of, as they stand, by start.
pub async fn asked(pool: &PgPool, patients: &[PatientId], now: DateTime<Utc>) -> sqlx::Result<Vec<Asked>> {
    let patients: Vec<Uuid> = patients.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select v.appointment_id, v.patient_id, v.clinic_id, v.start_time, v.time_zone,
                  m.id as "message!", m.create_time as "at!"
           from notify.visit v
           cross join lateral (
               select id, create_time from notify.message m
               where m.appointment_id = v.appointment_id and m.appointment_version = v.version
                 and m.kind in ('MESSAGE_KIND_REMINDER_24H', 'MESSAGE_KIND_REMINDER_2H')
                 and m.state in ('MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN', 'MESSAGE_STATE_SENT',
                                 'MESSAGE_STATE_DELIVERED')
               order by m.create_time desc limit 1
           ) m
           where v.patient_id = any($1) and v.standing and v.start_time > $2
           order by v.start_time, v.appointment_id"#,
        &patients,
        now,
    )
    .fetch_all(pool)
    .await?;
    let asked = rows.into_iter().map(|row| Asked {
        appointment: row.appointment_id.into(),
        patient: row.patient_id.into(),
        clinic: row.clinic_id.into(),
        start: row.start_time,
        // Checked when the visit was remembered.
        zone: row.time_zone.parse().unwrap_or(Tz::UTC),
        message: row.message.into(),
        at: row.at,
    });
    Ok(asked.collect())
}

/// A message that offers digits of its own.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Which.
    pub message: MessageId,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// It asks which visit, or which offer, was meant.
    pub asks_which: bool,
    /// It is about offers.
    pub about_offers: bool,
    /// When it was last answered; `None` = not yet.
    pub answered: Option<DateTime<Utc>>,
}

/// The newest message since `since` that offers digits of its own: to one of these patients, or in answer to this number.
pub async fn question(
    pool: &PgPool,
    number: NumberHash,
    patients: &[PatientId],
    since: DateTime<Utc>,
) -> sqlx::Result<Option<Question>> {
    let patients: Vec<Uuid> = patients.iter().map(|id| id.uuid()).collect();
    let row = sqlx::query!(
        r#"select m.id, m.create_time, m.kind = 'MESSAGE_KIND_REPLY_CHOICE' as "asks_which!",
                  exists (select from notify.choice c where c.message_id = m.id and c.offer_id is not null) as "about_offers!",
                  (select max(a.create_time) from notify.message a where a.in_reply_to_id = m.id) as answered
           from notify.message m
           where m.create_time >= $3
             and exists (select from notify.choice c where c.message_id = m.id)
             and (m.patient_id = any($2)
                  or exists (select from notify.inbound i where i.message_id = m.in_reply_to_id and i.number_hash = $1))
           order by m.create_time desc, m.id desc limit 1"#,
        number.as_slice(),
        &patients,
        since,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Question {
        message: row.id.into(),
        at: row.create_time,
        asks_which: row.asks_which,
        about_offers: row.about_offers,
        answered: row.answered,
    }))
}

/// What a digit means as the answer to a question; `None` = it was not offered.
pub async fn choice(pool: &PgPool, question: MessageId, digit: u8) -> sqlx::Result<Option<Decision>> {
    let row = sqlx::query!(
        r#"select c.meaning, c.appointment_id, c.offer_id, v.patient_id as "patient_id?"
           from notify.choice c left join notify.visit v on v.appointment_id = coalesce(c.appointment_id, c.offer_id)
           where c.message_id = $1 and c.digit = $2"#,
        question.uuid(),
        i32::from(digit),
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Decision {
        meaning: ReplyMeaning::from_str_name(&row.meaning).unwrap_or_default(),
        choice: digit.into(),
        patient: row.patient_id.map(Into::into),
        appointment: row.appointment_id.map(Into::into),
        offer: row.offer_id,
        in_reply_to: Some(question),
    }))
}

/// The time that a digit offered stands for; `None` = it stands for none.
pub async fn alternative(
    pool: &PgPool,
    question: MessageId,
    digit: i32,
) -> sqlx::Result<Option<Alternative>> {
    let row = sqlx::query!(
        r#"select provider_id as "provider_id!", start_time as "start_time!" from notify.choice
           where message_id = $1 and digit = $2 and start_time is not null"#,
        question.uuid(),
        digit,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Alternative { provider: row.provider_id.into(), start: row.start_time }))
}

/// Offers digits in a message: the first stands for the first visit, or the first offer, and so on.
pub async fn offer(
    tx: &mut PgConnection,
    message: MessageId,
    meaning: ReplyMeaning,
    visits: &[AppointmentId],
) -> sqlx::Result<()> {
    let visits: Vec<Uuid> = visits.iter().map(|id| id.uuid()).collect();
    let offers = matches!(meaning, ReplyMeaning::AcceptOffer | ReplyMeaning::DeclineOffer);
    sqlx::query!(
        "insert into notify.choice (message_id, digit, meaning, appointment_id, offer_id)
         select $1, place, $2, case when not $4 then visit end, case when $4 then visit end
         from unnest($3::uuid[]) with ordinality as listed (visit, place)",
        message.uuid(),
        meaning.as_str_name(),
        &visits,
        offers,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// A visit as notify knows it: where and when.
pub async fn visit(
    pool: &PgPool,
    appointment: AppointmentId,
) -> sqlx::Result<Option<(ClinicId, DateTime<Utc>, Tz)>> {
    let row = sqlx::query!(
        "select clinic_id, start_time, time_zone from notify.visit where appointment_id = $1",
        appointment.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| (row.clinic_id.into(), row.start_time, row.time_zone.parse().unwrap_or(Tz::UTC))))
}

/// The clinic of these patients' latest visit.
pub async fn clinic(pool: &PgPool, patients: &[PatientId]) -> sqlx::Result<Option<ClinicId>> {
    let patients: Vec<Uuid> = patients.iter().map(|id| id.uuid()).collect();
    let found = sqlx::query_scalar!(
        "select clinic_id from notify.visit where patient_id = any($1) order by start_time desc limit 1",
        &patients
    );
    Ok(found.fetch_optional(pool).await?.map(Into::into))
}

/// Answers written to a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// Since the first of the two instants asked for.
    pub recent: i64,
    /// Since the second, which is earlier.
    pub all: i64,
    /// Of these, explanations of what was not understood.
    pub explained: i64,
}

/// Counts what was answered to a number. Nobody else answers it until the transaction ends.
pub async fn answers(
    tx: &mut PgConnection,
    number: NumberHash,
    recent: DateTime<Utc>,
    since: DateTime<Utc>,
) -> sqlx::Result<Answers> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 0))", number.as_slice())
        .execute(&mut *tx)
        .await?;
    sqlx::query_as!(
        Answers,
        r#"select count(*) filter (where a.create_time >= $2) as "recent!", count(*) as "all!",
                  count(*) filter (where i.meaning = 'REPLY_MEANING_UNKNOWN') as "explained!"
           from notify.inbound i join notify.message a on a.in_reply_to_id = i.message_id
           where i.number_hash = $1 and i.receive_time >= $3 and a.state <> 'MESSAGE_STATE_DROPPED'"#,
        number.as_slice(),
        recent,
        since,
    )
    .fetch_one(tx)
    .await
}

/// The answer to a text, when it has been written, and how far it is.
pub async fn answer(pool: &PgPool, text: MessageId) -> sqlx::Result<Option<(MessageId, MessageState)>> {
    let row = sqlx::query!(
        "select id, state from notify.message where in_reply_to_id = $1 and kind <> 'MESSAGE_KIND_INBOUND'",
        text.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| (row.id.into(), MessageState::from_str_name(&row.state).unwrap_or_default())))
}

/// Moves an open message to another state: QUEUED, SENDING with one more attempt, UNKNOWN, DROPPED. False when the provider has told
/// otherwise meanwhile.
pub async fn step(
    tx: &mut PgConnection,
    message: MessageId,
    state: MessageState,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let stepped = sqlx::query!(
        "update notify.message
         set state = $2, update_time = $3, attempts = attempts + case when $2 = 'MESSAGE_STATE_SENDING' then 1 else 0 end
         where id = $1 and state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN')",
        message.uuid(),
        state.as_str_name(),
        now
    )
    .execute(tx)
    .await?;
    Ok(stepped.rows_affected() == 1)
}

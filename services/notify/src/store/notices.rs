//! Notices that wait, and the messages they become.
//!
//! A claim is a lease as the dispatcher's is: its holder names it with every change, so that one who was too slow changes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ChargeId, ClinicId, MessageId, PatientId};
use proto::clinic::appointments::v1::AppointmentState;
use proto::clinic::notify::v1::{Channel, DropReason, MessageKind, MessageState, ReplyMeaning};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Message;
use super::opt_out::NumberHash;
use crate::domain::Visit;
use crate::domain::notice::{CAPS, Facts};
use crate::words::Text;

/// Something to be told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The message's, once there is one.
    pub id: MessageId,
    /// What it is about.
    pub kind: MessageKind,
    /// By which way.
    pub channel: Channel,
    /// Goes by e-mail where no number may be texted.
    pub or_email: bool,
    /// Whom.
    pub patient: PatientId,
    /// Whose name it carries; `None` = nobody's.
    pub clinic: Option<ClinicId>,
    /// The visit.
    pub appointment: Option<AppointmentId>,
    /// The version of the visit that it speaks of; 0 = it does not depend on one.
    pub appointment_version: i64,
    /// The charge.
    pub charge: Option<ChargeId>,
    /// What else it says.
    pub facts: Facts,
    /// Not worth telling from then on.
    pub expire_time: DateTime<Utc>,
    /// When it happened.
    pub create_time: DateTime<Utc>,
}

/// A notice in this process's hands.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The notice.
    pub notice: Notice,
    /// When the visit starts; `None` = it is about none that is known.
    pub start: Option<DateTime<Utc>>,
    /// The zone of the visit's clinic, else of the patient's latest visit's, else UTC.
    pub zone: Tz,
    /// The visit has a newer version.
    pub superseded: bool,
    /// Its intake form: whether there is one.
    pub has_form: bool,
    /// Tries that failed so far.
    pub tries: i32,
    /// The lease.
    pub lease: DateTime<Utc>,
    /// The message it has become, not settled yet.
    pub message: Option<Message>,
}

/// Writes down a notice that is told at `at` at the earliest.
pub async fn insert(tx: &mut PgConnection, notice: &Notice, at: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notify.notice
            (id, kind, channel, or_email, patient_id, clinic_id, appointment_id, appointment_version, charge_id, facts,
             expire_time, next_try, create_time)
         values ($1, $2, $3, $4, notify.survivor($5), $6, $7, $8, $9, $10, $11, $12, $13)",
        notice.id.uuid(),
        notice.kind.as_str_name(),
        notice.channel.as_str_name(),
        notice.or_email,
        notice.patient.uuid(),
        notice.clinic.map(ClinicId::uuid),
        notice.appointment.map(AppointmentId::uuid),
        notice.appointment_version,
        notice.charge.map(ChargeId::uuid),
        Json(&notice.facts) as _,
        notice.expire_time,
        at,
        notice.create_time,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Whether a visit is as its patient has wanted it by a text received after `since`, which has an answer of its own.
pub async fn is_answered(tx: &mut PgConnection, visit: &Visit, since: DateTime<Utc>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select from notify.message m join notify.inbound i on i.message_id = m.id
               left join notify.choice c on c.message_id = m.in_reply_to_id and c.digit = i.choice
               where m.appointment_id = $1 and i.receive_time > $2
                 and case i.meaning when 'REPLY_MEANING_CANCEL' then $3 = 'APPOINTMENT_STATE_CANCELLED'
                                    when 'REPLY_MEANING_CHOOSE' then $3 = 'APPOINTMENT_STATE_BOOKED' and c.start_time = $4
                     end
           ) as "answered!""#,
        visit.appointment.uuid(),
        since,
        visit.state.as_str_name(),
        visit.start,
    )
    .fetch_one(tx)
    .await
}

/// Forgets what waits to be told of older versions of a visit. What has become a message its worker judges itself.
pub async fn forget_older(tx: &mut PgConnection, visit: &Visit) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from notify.notice n
         where appointment_id = $1 and appointment_version between 1 and $2::bigint - 1
           and not exists (select from notify.message m where m.id = n.id)",
        visit.appointment.uuid(),
        visit.version
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Notes news of a charge and forgets what waits to be told of older ones; answers whether it was news.
pub async fn remember_charge(tx: &mut PgConnection, charge: ChargeId, version: i64) -> sqlx::Result<bool> {
    let remembered = sqlx::query!(
        "insert into notify.charge (charge_id, version) values ($1, $2)
         on conflict (charge_id) do update set version = excluded.version where charge.version < excluded.version",
        charge.uuid(),
        version
    )
    .execute(&mut *tx)
    .await?;
    if remembered.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "delete from notify.notice n
         where charge_id = $1 and not exists (select from notify.message m where m.id = n.id)",
        charge.uuid()
    )
    .execute(tx)
    .await?;
    Ok(true)
}

/// Claims up to `limit` notices whose time has come, for `lease`: offers, or all others.
pub async fn claim(pool: &PgPool, offers: bool, limit: i64, lease: Duration) -> sqlx::Result<Vec<Claimed>> {
    let mut conn = pool.acquire().await?;
    let rows = sqlx::query!(
        r#"with due as (
               select id from notify.notice
               where (kind = 'MESSAGE_KIND_WAITLIST_OFFER') = $3 and next_try <= clock.now()
               order by next_try
               limit $1
               for update skip locked
           ), claimed as (
               update notify.notice n
               set next_try = clock.now() + make_interval(secs => $2)
               from due where n.id = due.id
               returning n.*
           )
           select n.id as "id!", n.kind as "kind!", n.channel as "channel!", n.or_email as "or_email!",
                  n.patient_id as "patient_id!", n.clinic_id, n.appointment_id, n.charge_id,
                  n.appointment_version as "appointment_version!", n.facts as "facts!: Json<Facts>",
                  n.expire_time as "expire_time!", n.create_time as "create_time!", n.tries as "tries!",
                  n.next_try as "next_try!", v.start_time as "start_time?", v.has_form as "has_form?",
                  coalesce(v.time_zone, (select l.time_zone from notify.visit l where l.patient_id = n.patient_id
                                         order by l.start_time desc limit 1)) as time_zone,
                  (n.appointment_version > 0 and v.version > n.appointment_version) as superseded,
                  exists (select from notify.message m where m.id = n.id) as written
           from claimed n left join notify.visit v on v.appointment_id = n.appointment_id"#,
        limit,
        lease.as_secs_f64(),
        offers,
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> =
        rows.iter().filter(|row| row.written.unwrap_or_default()).map(|row| row.id).collect();
    let mut messages = if ids.is_empty() { vec![] } else { super::outgoing::load(&mut conn, &ids).await? };
    let claimed = rows.into_iter().map(|row| Claimed {
        message: messages.iter().position(|m| m.id.uuid() == row.id).map(|at| messages.swap_remove(at)),
        notice: Notice {
            id: row.id.into(),
            kind: MessageKind::from_str_name(&row.kind).unwrap_or_default(),
            channel: Channel::from_str_name(&row.channel).unwrap_or_default(),
            or_email: row.or_email,
            patient: row.patient_id.into(),
            clinic: row.clinic_id.map(Into::into),
            appointment: row.appointment_id.map(Into::into),
            appointment_version: row.appointment_version,
            charge: row.charge_id.map(Into::into),
            facts: row.facts.0,
            expire_time: row.expire_time,
            create_time: row.create_time,
        },
        start: row.start_time,
        zone: row.time_zone.and_then(|name| name.parse().ok()).unwrap_or(Tz::UTC),
        superseded: row.superseded.unwrap_or_default(),
        has_form: row.has_form.unwrap_or_default(),
        tries: row.tries,
        lease: row.next_try,
    });
    Ok(claimed.collect())
}

/// Looks at a claimed notice again after `wait`.
pub async fn try_later(pool: &PgPool, claimed: &Claimed, wait: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.notice set next_try = clock.now() + make_interval(secs => $3), tries = tries + 1
         where id = $1 and next_try = $2",
        claimed.notice.id.uuid(),
        claimed.lease,
        wait.as_secs_f64(),
    )
    .execute(pool)
    .await
    .map(drop)
}

/// Keeps a claimed notice until `until`.
pub async fn postpone(pool: &PgPool, claimed: &Claimed, until: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.notice set next_try = $3 where id = $1 and next_try = $2",
        claimed.notice.id.uuid(),
        claimed.lease,
        until,
    )
    .execute(pool)
    .await
    .map(drop)
}

/// Takes a claimed notice out of the queue; false when the lease was lost or newer news replaced it.
pub async fn take(tx: &mut PgConnection, claimed: &Claimed) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        "delete from notify.notice where id = $1 and next_try = $2",
        claimed.notice.id.uuid(),
        claimed.lease,
    )
    .execute(tx)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Renews the lease of a claimed notice, which is handed over next; `None` when it was lost, newer news replaced it, or the recipient
/// opted out meanwhile.
pub async fn renew(
    tx: &mut PgConnection,
    claimed: &Claimed,
    number: NumberHash,
    lease: Duration,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        "update notify.notice set next_try = clock.now() + make_interval(secs => $3)
         where id = $1 and next_try = $2
           and not exists (select from notify.opt_out o where o.number_hash = $4 and o.opted_out)
         returning next_try",
        claimed.notice.id.uuid(),
        claimed.lease,
        lease.as_secs_f64(),
        number.as_slice(),
    )
    .fetch_optional(tx)
    .await
}

/// A message that a notice became, in a state.
#[derive(Clone, Debug)]
pub struct Written<'a> {
    /// The notice, with the channel it goes by.
    pub notice: &'a Notice,
    /// QUEUED, SENDING or DROPPED.
    pub state: MessageState,
    /// Why it is not sent.
    pub drop_reason: DropReason,
    /// Its words; `None` = it was never written.
    pub text: Option<&'a Text>,
    /// The language they are in.
    pub language: &'a str,
}

/// Writes the message that a notice became, or moves it to another state: counted as an attempt when that is SENDING.
pub async fn put_message(
    tx: &mut PgConnection,
    written: &Written<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let Written { notice, state, drop_reason, text, language } = written;
    sqlx::query!(
        "insert into notify.message as m
            (id, patient_id, appointment_id, appointment_version, kind, channel, language, state, drop_reason,
             failure_reason, provider_error_code, subject, body, encoding, segments, attempts, create_time, update_time,
             next_try)
         values ($1, notify.survivor($2), $3, $4, $5, $6, $7, $8, $9, 'FAILURE_REASON_UNSPECIFIED', '', $10, $11, $12, $13,
                 case when $8 = 'MESSAGE_STATE_SENDING' then 1 else 0 end, $14, $14,
                 case when $8 = 'MESSAGE_STATE_QUEUED' and $6 = 'CHANNEL_EMAIL' then clock.now() end)
         on conflict (id) do update
         set state = excluded.state, drop_reason = excluded.drop_reason, attempts = m.attempts + excluded.attempts,
             update_time = excluded.update_time
         where m.state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN')",
        notice.id.uuid(),
        notice.patient.uuid(),
        notice.appointment.map(AppointmentId::uuid),
        notice.appointment_version,
        notice.kind.as_str_name(),
        notice.channel.as_str_name(),
        language,
        state.as_str_name(),
        drop_reason.as_str_name(),
        text.map_or("", |text| &text.subject),
        text.map_or("", |text| &text.body),
        text.map(|text| text.measure.encoding).unwrap_or_default().as_str_name(),
        text.map_or(0, |text| text.measure.segments as i32),
        now,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Writes down which digits a notice offers to answer with, for those that offer any: times instead of a displaced visit's, and what to
/// do with an offer.
pub async fn offer_choices(tx: &mut PgConnection, notice: &Notice) -> sqlx::Result<()> {
    let meanings = match notice.kind {
        MessageKind::WaitlistOffer => vec![ReplyMeaning::AcceptOffer, ReplyMeaning::DeclineOffer],
        MessageKind::Displaced => vec![ReplyMeaning::Choose; notice.facts.alternatives.len()],
        _ => return Ok(()),
    };
    let meanings: Vec<String> =
        meanings.into_iter().map(|meaning| meaning.as_str_name().to_owned()).collect();
    let appointment = notice.appointment.map(AppointmentId::uuid);
    let is_offer = notice.kind == MessageKind::WaitlistOffer;
    let (providers, starts): (Vec<Uuid>, Vec<DateTime<Utc>>) =
        notice.facts.alternatives.iter().map(|other| (other.provider.uuid(), other.start)).unzip();
    sqlx::query!(
        "insert into notify.choice (message_id, digit, meaning, appointment_id, offer_id, provider_id, start_time)
         select $1, digit, meaning, $3, $4, provider, start
         from unnest($2::text[], $5::uuid[], $6::timestamptz[]) with ordinality as m (meaning, provider, start, digit)
         on conflict do nothing",
        notice.id.uuid(),
        &meanings,
        appointment.filter(|_| !is_offer),
        appointment.filter(|_| is_offer),
        &providers,
        &starts,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Keeps others from texting a patient until the transaction ends, and answers when texts that count towards the caps went to them
/// within the last week, newest first, `except` not counted.
pub async fn texts_to(
    tx: &mut PgConnection,
    patient: PatientId,
    except: MessageId,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<DateTime<Utc>>> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", patient.to_string())
        .execute(&mut *tx)
        .await?;
    sqlx::query_scalar!(
        r#"select moment as "moment!" from notify.unasked_text
           where patient_id = any(notify.ids_of($1)) and moment > $2 and id <> $3
           order by moment desc"#,
        patient.uuid(),
        now - CAPS[1].0,
        except.uuid(),
    )
    .fetch_all(tx)
    .await
}

/// A visit as it is known, and whose it is.
pub async fn visit(conn: &mut PgConnection, appointment: AppointmentId) -> sqlx::Result<Option<Visit>> {
    let row = sqlx::query!(
        "select version, patient_id, clinic_id, start_time, end_time, time_zone, state, has_form
         from notify.visit where appointment_id = $1",
        appointment.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Visit {
        appointment,
        version: row.version,
        patient: row.patient_id.into(),
        clinic: row.clinic_id.into(),
        start: row.start_time,
        end: row.end_time.unwrap_or(row.start_time),
        // Checked when the visit was remembered.
        zone: row.time_zone.parse().unwrap_or(Tz::UTC),
        state: AppointmentState::from_str_name(&row.state).unwrap_or_default(),
        has_form: row.has_form,
    }))
}

/// The clinic and zone of a patient's latest visit.
pub async fn home(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<Option<(ClinicId, Tz)>> {
    let row = sqlx::query!(
        "select clinic_id, time_zone from notify.visit where patient_id = any(notify.ids_of($1)) order by start_time desc limit 1",
        patient.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.clinic_id.into(), row.time_zone.parse().unwrap_or(Tz::UTC))))
}

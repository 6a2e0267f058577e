//! Reads what the checker judges: every service's tables with the superuser's eyes, and the provider's own list of payments.

use std::collections::HashMap;

use anyhow::Context as _;
use chrono::{DateTime, NaiveDate, Utc};
use proto::clinic::appointments::v1::Appointment;
use serde_json::Value;
use sqlx::postgres::{PgRow, types::PgRange};
use sqlx::{PgConnection, Row as _};
use std::ops::Bound;
use uuid::Uuid;

use crate::facts::{Change, Charge, Intent, Kept, Place, Reservation, Rows, Span, State};
use crate::stage::Stage;

/// What keeps the suite from being at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unrest {
    /// Bookings that somebody drives.
    pub driven: i64,
    /// Charges and refunds that are on their way.
    pub charges: i64,
    /// Holds and visits that have ended, and billing does not know.
    pub unheard: i64,
    /// Events that are not published.
    pub unpublished: i64,
    /// Appointments to be judged again under a changed calendar.
    pub unjudged: i64,
}

/// What is still going on.
pub async fn unrest(admin: &mut PgConnection) -> anyhow::Result<Unrest> {
    let outboxes: Vec<String> = kit::bootstrap::SCHEMAS
        .iter()
        .map(|schema| format!("select count(*) from {schema}.outbox where published_at is null"))
        .collect();
    let sql = format!(
        "select (select count(*) from appointments.reservation
                 where state = 'held' and driven_until is not null and copay <> 'action_required'),
                (select count(*) from billing.charge
                 where state in ('AUTHORIZING', 'CAPTURING', 'VOIDING', 'LAPSED'))
                 + (select count(*) from billing.refund where state = 'PENDING'),
                (select count(*) from appointments.reservation r join billing.charge c on c.appointment_id = r.id
                 where c.kind = 'COPAY'
                   and (c.state = 'AUTHORIZED' and r.state not in ('held', 'booked', 'displaced', 'checked_in')
                        or c.state = 'VOIDED' and r.state = 'completed')),
                (select sum(n)::bigint from ({}) as outboxes (n)),
                (select count(*) from appointments.reservation where judge_at is not null)",
        outboxes.join(" union all ")
    );
    // Made of our own constants.
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(admin).await?;
    Ok(Unrest {
        driven: row.get(0),
        charges: row.get(1),
        unheard: row.get(2),
        unpublished: row.get(3),
        unjudged: row.get(4),
    })
}

fn span(range: PgRange<DateTime<Utc>>) -> anyhow::Result<Span> {
    match (range.start, range.end) {
        (Bound::Included(start), Bound::Excluded(end)) => Ok(Span { start, end }),
        other => anyhow::bail!("a half-open range is expected: {other:?}"),
    }
}

fn place(row: &PgRow) -> anyhow::Result<Place> {
    Ok(Place {
        clinic: row.get("clinic_id"),
        provider: row.get("provider_id"),
        room: row.get("room_id"),
        visit: span(row.get("visit"))?,
    })
}

fn state(row: &PgRow) -> anyhow::Result<State> {
    let word: String = row.get("state");
    State::parse(&word).with_context(|| format!("{word:?} is no state"))
}

/// Everything.
pub async fn rows(stage: &Stage, kills: Vec<DateTime<Utc>>) -> anyhow::Result<Rows> {
    let mut admin = stage.admin().await?;
    let mut rows = Rows { kills, ..Rows::default() };
    reservations(&mut admin, &mut rows).await?;
    let sql = "select reservation_id, version, state::text, visit, clinic_id, provider_id, room_id,
                      pg_xact_commit_timestamp(transaction::xid) as committed
               from appointments.change";
    for row in sqlx::query(sql).fetch_all(&mut admin).await? {
        let change = Change {
            reservation: row.get("reservation_id"),
            version: row.get("version"),
            state: state(&row)?,
            place: place(&row)?,
            committed: row.get("committed"),
        };
        rows.changes.insert((change.reservation, change.version), change);
    }
    for row in sqlx::query("select caller, request_id, response from appointments.request")
        .fetch_all(&mut admin)
        .await?
    {
        let response: Option<Vec<u8>> = row.get("response");
        // A booking keeps its id alone, in the same field.
        let answer: Appointment = prost::Message::decode(response.unwrap_or_default().as_slice())?;
        rows.requests
            .insert((row.get("caller"), row.get("request_id")), Kept { appointment: answer.id.parse()? });
    }
    let sql =
        "select aggregate_id, aggregate_version, count(*) as told from appointments.outbox group by 1, 2";
    for row in sqlx::query(sql).fetch_all(&mut admin).await? {
        rows.told.insert((row.get(0), row.get(1)), row.get("told"));
    }
    rows.charges = charges(&mut admin).await?;
    for row in sqlx::query("select id, time_zone from scheduling.clinic").fetch_all(&mut admin).await? {
        let zone: String = row.get("time_zone");
        rows.zones.insert(row.get("id"), zone.parse().map_err(anyhow::Error::msg)?);
    }
    rows.unpublished = unrest(&mut admin).await?.unpublished;
    rows.intents = intents(stage).await?;
    let js = async_nats::jetstream::new(async_nats::connect(&stage.nats_url).await?);
    let letters = kit::messaging::dead_letters::list(&js).await?;
    rows.dead_letters = letters
        .iter()
        .map(|l| format!("{} of {} by {}: {}", l.subject, l.event_id, l.consumer, l.error))
        .collect();
    rows.surfaced_deadlocks = stage.log_lines("deadlock detected")?;
    // An event comes again by itself, and no caller hears of it.
    rows.surfaced_deadlocks.retain(|line| !line.contains("an event failed and will come again"));
    // PostgreSQL's own words, which the driver passes on.
    rows.stray_transactions = stage.log_lines("already a transaction in progress")?;
    rows.panics = stage.log_lines("panicked at")?;
    Ok(rows)
}

async fn reservations(admin: &mut PgConnection, rows: &mut Rows) -> anyhow::Result<()> {
    let sql = "select id, version, state::text, patient_id, service_type_id, clinic_id, provider_id, room_id, visit, occupied,
                      visit_date, copay::text, charge_id, driven_until is not null as driven, fee_due
               from appointments.reservation";
    for row in sqlx::query(sql).fetch_all(admin).await? {
        let visit_date: NaiveDate = row.get("visit_date");
        let reservation = Reservation {
            id: row.get("id"),
            version: row.get("version"),
            state: state(&row)?,
            patient: row.get("patient_id"),
            service_type: row.get("service_type_id"),
            place: place(&row)?,
            occupied: span(row.get("occupied"))?,
            visit_date,
            copay: row.get("copay"),
            charge: row.get("charge_id"),
            driven: row.get("driven"),
            fee_due: row.get("fee_due"),
        };
        rows.reservations.insert(reservation.id, reservation);
    }
    Ok(())
}

async fn charges(admin: &mut PgConnection) -> anyhow::Result<Vec<Charge>> {
    let sql =
        "select c.id, c.appointment_id, c.kind, c.state, c.amount, c.captured_amount, c.refunded_amount,
                      (select count(*) from billing.attempt a where a.charge_id = c.id) as attempts,
                      (select coalesce(sum(p.amount), 0)::bigint
                       from billing.journal e join billing.posting p on p.entry_id = e.id
                       where e.charge_id = c.id and e.kind = 'PAYMENT' and p.account = 'PROVIDER') as paid
               from billing.charge c order by c.id";
    let charge = |row: PgRow| Charge {
        id: row.get("id"),
        appointment: row.get("appointment_id"),
        kind: row.get("kind"),
        state: row.get("state"),
        amount: row.get("amount"),
        captured: row.get("captured_amount"),
        refunded: row.get("refunded_amount"),
        attempts: row.get("attempts"),
        paid: row.get("paid"),
    };
    Ok(sqlx::query(sql).fetch_all(admin).await?.into_iter().map(charge).collect())
}

async fn intents(stage: &Stage) -> anyhow::Result<Vec<Intent>> {
    let url = format!("{}/sandbox/payment_intents", stage.sandbox_url);
    let listed: Vec<Value> = reqwest::get(url).await?.error_for_status()?.json().await?;
    let intent = |value: &Value| {
        let text = |field: &str| Some(value.get(field)?.as_str()?.to_owned());
        let number = |field: &str| value.get(field)?.as_i64();
        let metadata: HashMap<String, String> =
            serde_json::from_value(value.get("metadata")?.clone()).ok()?;
        // The charge's refunds include what a partial capture released.
        let kept = match value.get("latest_charge").filter(|charge| charge["captured"] == true) {
            Some(charge) => charge.get("amount")?.as_i64()? - charge.get("amount_refunded")?.as_i64()?,
            None => 0,
        };
        Some(Intent {
            id: text("id")?,
            appointment: metadata.get("appointment_id")?.parse::<Uuid>().ok()?,
            status: text("status")?,
            amount: number("amount")?,
            kept,
        })
    };
    listed
        .iter()
        .map(|value| intent(value).with_context(|| format!("a payment of an appointment: {value}")))
        .collect()
}

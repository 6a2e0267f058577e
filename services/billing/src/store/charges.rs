//! Charges.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use kit::ids::{AppointmentId, ChargeId, ClinicId, PatientId, PaymentMethodId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::visits;
use crate::domain::charge::{Charge, Kind, State, VoidCause};
use crate::domain::visit::Visit;

/// Digits of a second that the database keeps.
const MICROSECONDS: u16 = 6;

struct Row {
    id: Uuid,
    appointment_id: Uuid,
    kind: String,
    state: String,
    currency: String,
    amount: i64,
    authorized_amount: i64,
    captured_amount: i64,
    drawn_from_copay_amount: i64,
    drawn_reference: Option<String>,
    refunded_amount: i64,
    owed_amount: i64,
    draw_amount: i64,
    payment_method_id: Option<Uuid>,
    provider_reference: Option<String>,
    capture_before: Option<DateTime<Utc>>,
    decline_code: Option<String>,
    client_secret: Option<String>,
    void_cause: Option<String>,
    attempt: i32,
    version: i64,
    revision: i64,
    #[allow(dead_code, reason = "the lease is the claim's own business; `select *` brings it along")]
    due_at: Option<DateTime<Utc>>,
    tries: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    authorized_at: Option<DateTime<Utc>>,
    #[allow(dead_code, reason = "as the lease")]
    missing_since: Option<DateTime<Utc>>,
    visit_version: i64,
    patient_id: Uuid,
    clinic_id: Uuid,
    service_type_id: Uuid,
    start_time: DateTime<Utc>,
    ending: Option<String>,
    fee_amount: i64,
    fee_reversed: bool,
}

impl TryFrom<Row> for (Charge, Visit) {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let visit = visits::Row {
            appointment_id: row.appointment_id,
            version: row.visit_version,
            patient_id: row.patient_id,
            clinic_id: row.clinic_id,
            service_type_id: row.service_type_id,
            start_time: row.start_time,
            ending: row.ending,
            fee_amount: row.fee_amount,
            fee_reversed: row.fee_reversed,
        };
        let charge = Charge {
            id: row.id.into(),
            appointment: row.appointment_id.into(),
            kind: super::word(Kind::of_word, &row.kind)?,
            state: super::word(State::of_word, &row.state)?,
            currency: super::currency(&row.currency)?,
            amount: row.amount,
            authorized: row.authorized_amount,
            captured: row.captured_amount,
            drawn_from_copay: row.drawn_from_copay_amount,
            drawn_reference: row.drawn_reference,
            refunded: row.refunded_amount,
            owed: row.owed_amount,
            draw: row.draw_amount,
            payment_method: row.payment_method_id.map(PaymentMethodId::from),
            provider_reference: row.provider_reference,
            capture_before: row.capture_before,
            authorized_at: row.authorized_at,
            decline_code: row.decline_code,
            client_secret: row.client_secret,
            void_cause: row.void_cause.map(|word| super::word(VoidCause::of_word, &word)).transpose()?,
            attempt: row.attempt,
            version: row.version,
            revision: row.revision,
            tries: row.tries,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok((charge, visit.try_into()?))
    }
}

/// The charge of a kind that an appointment has, locked. The visit is locked before.
pub async fn lock(
    tx: &mut PgConnection,
    appointment: AppointmentId,
    kind: Kind,
) -> sqlx::Result<Option<Charge>> {
    Ok(lock_with_visit(tx, appointment, kind).await?.map(|(charge, _)| charge))
}

/// The charge of a kind that an appointment has, with its visit: both locked, the visit first.
pub async fn lock_with_visit(
    tx: &mut PgConnection,
    appointment: AppointmentId,
    kind: Kind,
) -> sqlx::Result<Option<(Charge, Visit)>> {
    let row = sqlx::query_as!(
        Row,
        r#"select charge.*, visit.version as visit_version, billing.survivor(visit.patient_id) as "patient_id!",
             visit.clinic_id, visit.service_type_id, visit.start_time, visit.ending, visit.fee_amount, visit.fee_reversed
         from billing.visit join billing.charge using (appointment_id)
         where visit.appointment_id = $1 and charge.kind = $2
         for update"#,
        appointment.uuid(),
        kind.word(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(Row::try_into).transpose()
}

/// Adds a charge that was just made; a worker looks at it after `due`, `None` = never.
pub async fn insert(tx: &mut PgConnection, charge: &Charge, due: Option<Duration>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.charge (id, appointment_id, kind, state, currency, amount, authorized_amount, captured_amount,
             drawn_from_copay_amount, refunded_amount, owed_amount, draw_amount, payment_method_id, provider_reference,
             attempt, version, revision, due_at, tries, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, 0, 0, 0, 0, 0, 0, $7, $8, $9, $10, $11,
             clock.now() + make_interval(secs => $12), 0, $13, $13)",
        charge.id.uuid(),
        charge.appointment.uuid(),
        charge.kind.word(),
        charge.state.word(),
        charge.currency.code(),
        charge.amount,
        charge.payment_method.map(PaymentMethodId::uuid),
        charge.provider_reference,
        charge.attempt,
        charge.version,
        charge.revision,
        due.map(|due| due.as_secs_f64()),
        charge.created_at,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Writes a locked charge back as one more change; a worker looks at it after `due`, `None` = never.
pub async fn save(
    tx: &mut PgConnection,
    charge: &mut Charge,
    due: Option<Duration>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    charge.revision += 1;
    // As the database keeps it, so that what is answered from memory is what is read later.
    charge.updated_at = now.trunc_subsecs(MICROSECONDS);
    charge.tries = 0;
    sqlx::query!(
        "update billing.charge set state = $2, authorized_amount = $3, captured_amount = $4,
             drawn_from_copay_amount = $5, refunded_amount = $6, owed_amount = $7, draw_amount = $8,
             payment_method_id = $9, provider_reference = $10, capture_before = $11, decline_code = $12,
             client_secret = $13, void_cause = $14, attempt = $15, version = $16, revision = $17, tries = 0,
             due_at = clock.now() + make_interval(secs => $18), missing_since = null, updated_at = $19,
             authorized_at = $20, drawn_reference = $21
         where id = $1",
        charge.id.uuid(),
        charge.state.word(),
        charge.authorized,
        charge.captured,
        charge.drawn_from_copay,
        charge.refunded,
        charge.owed,
        charge.draw,
        charge.payment_method.map(PaymentMethodId::uuid),
        charge.provider_reference,
        charge.capture_before,
        charge.decline_code,
        charge.client_secret,
        charge.void_cause.map(VoidCause::word),
        charge.attempt,
        charge.version,
        charge.revision,
        due.map(|due| due.as_secs_f64()),
        now,
        charge.authorized_at,
        charge.drawn_reference,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Has a worker look at a charge after `due`, unless it changed since `revision`. Not a change of the charge.
pub async fn postpone(
    conn: &mut PgConnection,
    id: ChargeId,
    revision: i64,
    due: Option<Duration>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.charge set due_at = clock.now() + make_interval(secs => $3) where id = $1 and revision = $2",
        id.uuid(),
        revision,
        due.map(|due| due.as_secs_f64()),
    )
    .execute(conn)
    .await
    .map(drop)
}

/// The same of a charge whose payment the provider has shown.
pub async fn found(
    conn: &mut PgConnection,
    id: ChargeId,
    revision: i64,
    due: Option<Duration>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.charge set due_at = clock.now() + make_interval(secs => $3), missing_since = null
         where id = $1 and revision = $2",
        id.uuid(),
        revision,
        due.map(|due| due.as_secs_f64()),
    )
    .execute(conn)
    .await
    .map(drop)
}

/// The same of a charge whose payment the provider does not know; answers since when it does not.
pub async fn missing(
    conn: &mut PgConnection,
    id: ChargeId,
    revision: i64,
    due: Duration,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        r#"update billing.charge set due_at = clock.now() + make_interval(secs => $3),
             missing_since = coalesce(missing_since, clock.now())
         where id = $1 and revision = $2 returning missing_since as "since!""#,
        id.uuid(),
        revision,
        due.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await
}

/// Has a worker look at once at the charges whose newest payment is news: each payment with the state of a charge to which it is
/// none. Locks charges in the order in which everyone does.
pub async fn look_at(tx: &mut PgConnection, news: &[(String, State)]) -> sqlx::Result<u64> {
    let payments: Vec<String> = news.iter().map(|(payment, _)| payment.clone()).collect();
    let known: Vec<String> = news.iter().map(|(_, state)| state.word().to_owned()).collect();
    let looked = sqlx::query!(
        "update billing.charge set due_at = clock.now(), tries = 0
         where id in (
             select charge.id from billing.charge
             where exists (select from unnest($1::text[], $2::text[]) as news (payment, known)
                           where news.payment = charge.provider_reference and news.known <> charge.state)
                 and charge.provider_reference = any($1)
             order by charge.appointment_id, charge.kind
             for update
         )",
        &payments,
        &known,
    );
    Ok(looked.execute(tx).await?.rows_affected())
}

/// Fees that were taken back and of which not all could be given back, after `after`, with their visits.
pub async fn reversed(
    conn: &mut PgConnection,
    after: Option<ChargeId>,
    limit: i64,
) -> sqlx::Result<Vec<(Charge, Visit)>> {
    let rows = sqlx::query_as!(
        Row,
        "select charge.*, visit.version as visit_version, visit.patient_id, visit.clinic_id, visit.service_type_id,
             visit.start_time, visit.ending, visit.fee_amount, visit.fee_reversed
         from billing.visit join billing.charge using (appointment_id)
         where visit.fee_reversed and charge.kind = 'NO_SHOW_FEE' and charge.state = 'CAPTURED'
             and charge.captured_amount > charge.refunded_amount and ($1::uuid is null or charge.id > $1)
         order by charge.id limit $2",
        after.map(ChargeId::uuid),
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::try_into).collect()
}

/// The charges whose newest payment is one of these, with their visits.
pub async fn of_payments(conn: &mut PgConnection, payments: &[String]) -> sqlx::Result<Vec<(Charge, Visit)>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select charge.*, visit.version as visit_version, billing.survivor(visit.patient_id) as "patient_id!",
             visit.clinic_id, visit.service_type_id, visit.start_time, visit.ending, visit.fee_amount, visit.fee_reversed
         from billing.visit join billing.charge using (appointment_id)
         where charge.provider_reference = any($1)"#,
        payments,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::try_into).collect()
}

/// The charge for which a payment took money, with its visit: the fee that drew from it, else the charge whose newest it is.
pub async fn that_took(conn: &mut PgConnection, payment: &str) -> sqlx::Result<Option<(Charge, Visit)>> {
    let row = sqlx::query_as!(
        Row,
        "select charge.*, visit.version as visit_version, visit.patient_id, visit.clinic_id, visit.service_type_id,
             visit.start_time, visit.ending, visit.fee_amount, visit.fee_reversed
         from billing.visit join billing.charge using (appointment_id)
         where charge.drawn_reference = $1 or charge.provider_reference = $1
         order by charge.drawn_reference = $1 desc nulls last
         limit 1",
        payment,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::try_into).transpose()
}

/// What a fee drew from a co-pay's payment, minor units; 0 = none did.
pub async fn drawn(conn: &mut PgConnection, payment: &str) -> sqlx::Result<i64> {
    let drawn = sqlx::query_scalar!(
        "select drawn_from_copay_amount from billing.charge where drawn_reference = $1",
        payment
    );
    Ok(drawn.fetch_optional(conn).await?.unwrap_or(0))
}

/// Has a worker look at once at reservations that nobody plans to look at, of visits that go on and start after `started`, or that
/// were attended and are not paid; answers how many. Locks charges in the order in which everyone does.
pub async fn plan_looks(conn: &mut PgConnection, started: DateTime<Utc>) -> sqlx::Result<u64> {
    let planned = sqlx::query!(
        "update billing.charge set due_at = clock.now()
         where id in (
             select charge.id from billing.charge join billing.visit using (appointment_id)
             where charge.due_at is null and charge.state in ('AUTHORIZED', 'LAPSED') and charge.owed_amount = 0
                 and (visit.ending = 'ATTENDED' or (visit.ending is null and visit.start_time > $1))
             order by charge.appointment_id, charge.kind
             for update of charge
         )",
        started,
    );
    Ok(planned.execute(conn).await?.rows_affected())
}

/// Claims up to `limit` charges that are due, for `lease`: no other worker takes them meanwhile.
pub async fn claim(conn: &mut PgConnection, limit: i64, lease: Duration) -> sqlx::Result<Vec<ChargeId>> {
    let rows = sqlx::query_scalar!(
        "update billing.charge set due_at = clock.now() + make_interval(secs => $2), tries = tries + 1
         where id in (
             select id from billing.charge where due_at <= clock.now() order by due_at limit $1 for update skip locked
         )
         returning id",
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ChargeId::from).collect())
}

/// Which charges to list. Filters add up; empty or `None` = all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this patient, merged records included.
    pub patient: Option<PatientId>,
    /// Of this visit.
    pub appointment: Option<AppointmentId>,
    /// At this clinic.
    pub clinic: Option<ClinicId>,
    /// Of these kinds.
    pub kinds: Vec<Kind>,
    /// In these states.
    pub states: Vec<State>,
    /// Made at or after.
    pub from: Option<DateTime<Utc>>,
    /// Made before.
    pub until: Option<DateTime<Utc>>,
    /// With something owed.
    pub owed_only: bool,
}

/// Charges newest first, then by id, after `after` (creation and id of the last one seen), with their visits.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<(Charge, Visit)>> {
    let kinds: Vec<String> = filter.kinds.iter().map(|kind| kind.word().to_owned()).collect();
    let states: Vec<String> = filter.states.iter().map(|state| state.word().to_owned()).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"select charge.*, visit.version as visit_version, billing.survivor(visit.patient_id) as "patient_id!",
             visit.clinic_id, visit.service_type_id, visit.start_time, visit.ending, visit.fee_amount, visit.fee_reversed
         from billing.visit join billing.charge using (appointment_id)
         where ($1::uuid is null or visit.patient_id = any(billing.ids_of($1)))
             and ($2::uuid is null or charge.appointment_id = $2)
             and ($3::uuid is null or visit.clinic_id = $3)
             and (cardinality($4::text[]) = 0 or charge.kind = any($4))
             and (cardinality($5::text[]) = 0 or charge.state = any($5))
             and ($6::timestamptz is null or charge.created_at >= $6)
             and ($7::timestamptz is null or charge.created_at < $7)
             and (not $8 or charge.owed_amount > 0)
             and ($9::timestamptz is null or charge.created_at < $9 or (charge.created_at = $9 and charge.id > $10::uuid))
         order by charge.created_at desc, charge.id
         limit $11"#,
        filter.patient.map(PatientId::uuid),
        filter.appointment.map(AppointmentId::uuid),
        filter.clinic.map(ClinicId::uuid),
        &kinds,
        &states,
        filter.from,
        filter.until,
        filter.owed_only,
        after.map(|(at, _)| at),
        after.map(|(_, id)| id),
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::try_into).collect()
}

/// One charge with its visit.
pub async fn get_with_visit(conn: &mut PgConnection, id: ChargeId) -> sqlx::Result<Option<(Charge, Visit)>> {
    let row = sqlx::query_as!(
        Row,
        r#"select charge.*, visit.version as visit_version, billing.survivor(visit.patient_id) as "patient_id!",
             visit.clinic_id, visit.service_type_id, visit.start_time, visit.ending, visit.fee_amount, visit.fee_reversed
         from billing.visit join billing.charge using (appointment_id)
         where charge.id = $1"#,
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::try_into).transpose()
}

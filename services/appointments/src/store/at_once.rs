//! Steps to a booking in one statement each, which is a transaction of its own: the way of nearly every booking.

use chrono::{DateTime, Utc};
use kit::idempotency::Key;
use kit::ids::{ChargeId, PaymentMethodId};
use kit::messaging::outbox::Event;
use sqlx::PgPool;

use super::{By, range};
use crate::domain::{Copay, Reservation, State};

/// Takes the time, tells, and keeps `answer` with the request id, or answers nothing: some rule says no, the calendar moved on,
/// the patient or the provider is not known yet, or the patient was merged, the patient has a hold that may have to end first, the same call was answered
/// before, or a hold would not end when it should because the clocks differ. Which of them, is for a longer look. Otherwise
/// answers when.
///
/// The calendar's version is locked before it is compared: whoever follows calendars waits, and then finds the booking.
pub async fn take_at_once(
    pool: &PgPool,
    row: &Reservation,
    by: By<'_>,
    event: &Event,
    key: Option<&Key>,
    answer: &[u8],
) -> sqlx::Result<Option<DateTime<Utc>>> {
    let taken = change!(
        by,
        event,
        "insert into appointments.reservation
             (id, state, patient_id, service_type_id, clinic_id, provider_id, room_id, visit, occupied, visit_date, time_zone,
              calendar_version, intake_form_id, fee_start, copay, payment_method_id, overridden, hold_expires_at, driven_until,
              attempt_id)
         select $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $30,
                clock.now() + ($31::timestamptz - $33::timestamptz), $32
         from (select version from appointments.calendar_seen where provider_id = $14 for share) seen
         where seen.version <= $20 and exists (select from appointments.patient_seen where patient_id = $11)
           and not exists (select from appointments.merged where merged_id = $11)
           and not exists (select from appointments.reservation where patient_id = $11 and state = 'held')
           and ($30::timestamptz is null
                or clock.now() between $33::timestamptz - interval '1 second' and $33::timestamptz + interval '1 second')
         on conflict do nothing"; also ",
             answered as (
                 insert into appointments.request (caller, request_id, fingerprint, response)
                 select $26::text, $27::uuid, $28::bytea, $29::bytea from changed where $27 is not null)",
        row.id.uuid(),
        row.state as State,
        row.patient_id.uuid(),
        row.service_type_id.uuid(),
        row.clinic_id.uuid(),
        row.provider_id.uuid(),
        row.room_id.uuid(),
        range(row.visit()),
        range(row.occupied()),
        row.visit_date,
        row.time_zone,
        row.calendar_version,
        row.intake_form_id.map(|f| f.uuid()),
        row.fee_start,
        row.copay as Copay,
        row.payment_method_id.map(PaymentMethodId::uuid),
        &row.overridden,
        key.map(Key::caller),
        key.map(|key| key.request_id().uuid()),
        key.map(Key::fingerprint),
        answer,
        row.hold_expires_at,
        row.driven_until,
        row.attempt_id,
        row.created_at,
    );
    match taken.fetch_optional(pool).await {
        // The same call, in another attempt that was quicker; or two who wait for each other.
        Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => Ok(None),
        Err(error) if super::is_deadlock(&error) => Ok(None),
        taken => taken,
    }
}

/// HELD becomes BOOKED as the next version, and is told, unless the row is another by now or the hold's time is up. Answers when.
pub async fn confirm_at_once(
    pool: &PgPool,
    booked: &Reservation,
    event: &Event,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    let confirmed = change!(
        By::default(),
        event,
        "update appointments.reservation
         set version = $10, state = 'booked', copay = $11, charge_id = $12, hold_expires_at = null, driven_until = null,
             updated_at = clock.now()
         where id = $9 and version = $10::bigint - 1 and state = 'held' and hold_expires_at > clock.now()",
        booked.id.uuid(),
        booked.version,
        booked.copay as Copay,
        booked.charge_id.map(ChargeId::uuid),
    );
    confirmed.fetch_optional(pool).await
}

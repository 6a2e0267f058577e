//! Who drives the booking of a hold or an offer, and how its co-pay stands meanwhile.

use kit::ids::{AppointmentId, ChargeId, PaymentMethodId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Copay, DRIVE_LEASE};

/// Makes this caller the one who drives the booking of a locked hold or offer, as a new attempt; false when someone already does.
pub async fn drive(
    conn: &mut PgConnection,
    id: AppointmentId,
    payment_method: Option<PaymentMethodId>,
    calendar_version: i64,
) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        "update appointments.reservation
         set driven_until = clock.now() + make_interval(secs => $2), attempt_id = $3, payment_method_id = $4,
             copay = case when copay = 'not_required' then copay else 'pending' end, decline_code = '',
             calendar_version = greatest(calendar_version, $5)
         where id = $1 and (driven_until is null or driven_until <= clock.now() or copay = 'action_required')",
        id.uuid(),
        DRIVE_LEASE.as_secs_f64(),
        Uuid::now_v7(),
        payment_method.map(PaymentMethodId::uuid),
        calendar_version
    )
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// How an authorization stands that has not led to a booking.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// As far as the booking is concerned.
    pub copay: Copay,
    /// Billing's charge, when there is one.
    pub charge: Option<ChargeId>,
    /// Why it was declined; empty when it was not.
    pub decline_code: &'a str,
    /// When a recovery worker asks again; `None` = it is the patient's turn.
    pub retry_in_secs: Option<f64>,
}

/// Notes how an undecided authorization stands.
pub async fn note_copay(
    conn: &mut PgConnection,
    id: AppointmentId,
    standing: Standing<'_>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.reservation
         set copay = $2, charge_id = coalesce($3, charge_id), decline_code = $4, updated_at = clock.now(),
             driven_until = clock.now() + make_interval(secs => $5::float8)
         where id = $1 and state in ('held', 'offered')",
        id.uuid(),
        standing.copay as Copay,
        standing.charge.map(ChargeId::uuid),
        standing.decline_code,
        standing.retry_in_secs
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Bookings that nobody drives any more, taken over by this worker, at most `limit`.
pub async fn take_over(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<AppointmentId>> {
    sqlx::query_scalar!(
        r#"update appointments.reservation set driven_until = clock.now() + make_interval(secs => $1)
           where id in (
               select id from appointments.reservation
               where ((state = 'held' and driven_until <= clock.now()) or (state = 'offered' and driven_until <= clock.now()))
                 and hold_expires_at > clock.now()
               order by driven_until limit $2 for update skip locked)
           returning id as "id: AppointmentId""#,
        DRIVE_LEASE.as_secs_f64(),
        limit
    )
    .fetch_all(conn)
    .await
}

//! Appointments of years ago.

use bench::Sample;
use chrono::Days;
use sqlx::PgConnection;
use uuid::Uuid;

/// Days before the first that the last of them was.
const LATEST: u64 = 30;

/// Writes `rows` completed visits of 15 minutes, before the first day, each with its history; then the tables are as settled as after
/// years.
pub(super) async fn fill(db: &mut PgConnection, sample: &Sample, rows: i64) -> anyhow::Result<()> {
    let providers: Vec<Uuid> = sample.members.iter().map(|member| member.0.uuid()).collect();
    let clinics: Vec<Uuid> = sample.catalog.clinics.iter().map(|clinic| clinic.id.uuid()).collect();
    sqlx::query(
        "with visit as (
             select n, $2::timestamptz - (1 + n / cardinality($3::uuid[])) * interval '15 minutes' as start from generate_series(0, $1 - 1) n
         ), closed as (
             insert into appointments.reservation
                 (id, state, patient_id, service_type_id, clinic_id, provider_id, room_id, visit, occupied, visit_date, time_zone,
                  calendar_version, fee_start, copay, checked_in_at, closed_at)
             select gen_random_uuid(), 'completed',
                    ('00000000-0000-7000-8000-' || lpad(to_hex(n % 100000), 12, '0'))::uuid, $5,
                    ($4::uuid[])[(1 + n % cardinality($4::uuid[]))::int], ($3::uuid[])[(1 + n % cardinality($3::uuid[]))::int],
                    ($3::uuid[])[(1 + n % cardinality($3::uuid[]))::int],
                    tstzrange(start, start + interval '15 minutes'), tstzrange(start, start + interval '15 minutes'),
                    start::date, 'America/Chicago', 1, start, 'not_required', start, start + interval '15 minutes'
             from visit
             returning id, visit, clinic_id, provider_id, room_id
         )
         insert into appointments.change (reservation_id, version, state, changed_at, visit, clinic_id, provider_id, room_id)
         select id, 1, 'completed', upper(visit), visit, clinic_id, provider_id, room_id from closed",
    )
    .bind(rows)
    .bind(sample.now() - Days::new(LATEST))
    .bind(providers)
    .bind(clinics)
    .bind(sample.service().id.uuid())
    .execute(&mut *db)
    .await?;
    for settle in
        ["vacuum analyze appointments.reservation", "vacuum analyze appointments.change", "checkpoint"]
    {
        sqlx::query(settle).execute(&mut *db).await?;
    }
    Ok(())
}

//! Lists of appointments.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use kit::ids::{AppointmentId, ClinicId, PatientId, ProviderId, RoomId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Copay, Reservation, State};

/// What a list asks for. Empty filters match all.
#[derive(Debug, Default)]
pub struct Filter {
    /// Only this patient's, by any of the person's ids.
    pub patient: Option<PatientId>,
    /// Only at this clinic.
    pub clinic: Option<ClinicId>,
    /// Only with this provider.
    pub provider: Option<ProviderId>,
    /// Only in this room.
    pub room: Option<RoomId>,
    /// Only those that start on this day of their clinic's.
    pub date: Option<NaiveDate>,
    /// Only those whose visit overlaps it.
    pub from: Option<DateTime<Utc>>,
    /// See `from`.
    pub until: Option<DateTime<Utc>>,
    /// Only in these states.
    pub states: Vec<State>,
    /// Only what the front desk has to settle.
    pub on_work_list: bool,
}

impl Filter {
    /// Bounds of the starts that can match, so that the indexes by start are read no further: a visit is shorter than a day,
    /// and clocks differ from UTC by less than one.
    fn starts(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let day = TimeDelta::days(1);
        let midnight = self.date.map(|date| NaiveDateTime::from(date).and_utc());
        let after = [self.from.map(|t| t - day), midnight.map(|t| t - day)];
        let before = [self.until, midnight.map(|t| t + day * 2)];
        (after.into_iter().flatten().max(), before.into_iter().flatten().min())
    }
}

/// Appointments by (start, id), after the key `after`.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    latest_first: bool,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<Reservation>> {
    /// The two orders differ in nothing but their direction.
    macro_rules! ordered {
        ($beyond:literal, $order:literal) => {{
            let (after_start, after_id) = after.unzip();
            let (earliest, latest) = filter.starts();
            reservations!(
                r#"where ($1::uuid is null or r.patient_id = any(appointments.ids_of($1))) and ($2::uuid is null or r.clinic_id = $2)
                     and ($3::uuid is null or r.provider_id = $3) and ($10::uuid is null or r.room_id = $10)
                     and ($11::date is null or r.visit_date = $11)
                     and ($12::timestamptz is null or lower(r.visit) > $12)
                     and ($13::timestamptz is null or lower(r.visit) < $13)
                     and r.visit && tstzrange($4, $5) and r.state = any($6) and ($14::bool is not true or r.work_list_at is not null)
                     and ($7::timestamptz is null or (lower(r.visit), r.id) "# + $beyond + r#" ($7, $8::uuid))
                   order by "# + $order + r#" limit $9"#,
                filter.patient.map(PatientId::uuid),
                filter.clinic.map(ClinicId::uuid),
                filter.provider.map(ProviderId::uuid),
                filter.from,
                filter.until,
                &filter.states as &[State],
                after_start,
                after_id,
                limit,
                filter.room.map(RoomId::uuid),
                filter.date,
                earliest,
                latest,
                filter.on_work_list,
            )
            .fetch_all(conn)
            .await
        }};
    }
    if latest_first {
        ordered!("<", "lower(r.visit) desc, r.id desc")
    } else {
        ordered!(">", "lower(r.visit), r.id")
    }
}

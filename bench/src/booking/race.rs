//! Many clients for each slot: two providers and two rooms, asked for in every combination at the same moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use kit::client::Outbound;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tonic::Code;

use crate::agenda::Agenda;
use crate::load::Times;

/// Who race for one slot.
pub(super) const CLIENTS: usize = 32;
/// The most of them that two providers and two rooms have place for.
const PLACES: usize = 2;

/// The clients of one slot start together, each with a patient of its own; the next slot waits until all have their answer.
pub(super) async fn measure(
    db: &mut PgConnection,
    agenda: &Arc<Agenda>,
    desk: &BookingServiceClient<Outbound>,
    slots: usize,
) -> anyhow::Result<Value> {
    let catalog = &agenda.sample.catalog;
    // Providers are shared out among clinics in turns: both are of the first.
    let providers = [0, catalog.clinics.len()];
    let rooms: Vec<_> = catalog.rooms.iter().filter(|room| room.clinic_id == catalog.clinics[0].id).collect();
    let service = agenda.sample.service().id;
    let deadlocks = deadlocks(db).await?;
    let (mut times, mut unexpected, mut won) = (vec![], BTreeMap::<String, usize>::new(), 0);
    for slot in 0..slots {
        let start = agenda.later(slot);
        let mut calls = JoinSet::new();
        for client in 0..CLIENTS {
            let mut request = agenda.request(providers[client % 2], start, agenda.new_patient(), service);
            request.room_id = rooms[client / 2 % 2].id.to_string();
            let mut desk = desk.clone();
            calls.spawn(async move {
                let sent = Instant::now();
                (desk.book_appointment(request).await, sent.elapsed())
            });
        }
        let mut winners = 0;
        while let Some(ended) = calls.join_next().await {
            let (answer, took) = ended?;
            times.push(took);
            match answer {
                Ok(_) => winners += 1,
                Err(status) if status.code() == Code::Aborted => {}
                Err(status) => {
                    *unexpected.entry(format!("{:?} {}", status.code(), status.message())).or_default() += 1;
                }
            }
        }
        anyhow::ensure!((1..=PLACES).contains(&winners), "{winners} have won slot {slot}");
        won += winners;
    }
    let doubles: i64 = sqlx::query_scalar(
        "select count(*) from appointments.reservation a join appointments.reservation b on a.id < b.id
             and (a.provider_id = b.provider_id and a.occupied && b.occupied or a.room_id = b.room_id and a.visit && b.visit)
         where a.state = 'booked' and b.state = 'booked' and lower(a.visit) >= $1 and lower(b.visit) >= $1",
    )
    .bind(agenda.later(0))
    .fetch_one(&mut *db)
    .await?;
    let mut figures = Times::new(times).figures();
    figures["slots"] = slots.into();
    figures["clients"] = CLIENTS.into();
    figures["won"] = won.into();
    figures["doubles"] = doubles.into();
    figures["surfaced"] = json!(unexpected);
    figures["deadlocks_inside"] = (self::deadlocks(db).await? - deadlocks).into();
    Ok(figures)
}

/// How many the database has ended so far.
async fn deadlocks(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select coalesce(sum(deadlocks), 0)::bigint from pg_stat_database").fetch_one(db).await
}

//! From a booking's commit to its effect at a consumer: the row that makes the provider's time busy at scheduling.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use testkit::Servers;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::{Booker, followed};
use crate::load::{Caller as _, Times};

/// How often scheduling's table is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// `rate` bookings a second, however long each takes. Times run from the booking's own transaction, the `ce-time` of its event,
/// until the effect is committed and found, by the database's clock: both ends make them longer than they are.
pub(super) async fn measure(
    servers: &Servers,
    db: &mut PgConnection,
    bookers: Vec<Booker>,
    rate: u32,
    length: Duration,
) -> anyhow::Result<Value> {
    let (since, mut seen): (DateTime<Utc>, i64) =
        sqlx::query_as("select clock_timestamp(), coalesce(max(changed), 0) from scheduling.busy")
            .fetch_one(&mut *db)
            .await?;
    let mut watching = servers.admin().await;
    let watcher = tokio::spawn(async move {
        let mut effects: HashMap<Uuid, DateTime<Utc>> = HashMap::new();
        let mut look = interval(LOOK_EVERY);
        loop {
            look.tick().await;
            let found: Vec<(i64, Uuid, DateTime<Utc>)> = sqlx::query_as(
                "select changed, appointment_id, clock_timestamp() from scheduling.busy where changed > $1
                 order by changed limit 100",
            )
            .bind(seen)
            .fetch_all(&mut watching)
            .await?;
            for (changed, appointment, at) in found {
                seen = changed;
                // Nobody books the last one: it says that all have been seen.
                if appointment.is_nil() {
                    return Ok::<_, sqlx::Error>(effects);
                }
                effects.insert(appointment, at);
            }
        }
    });
    let bookings = (length.as_secs_f64() * f64::from(rate)) as usize;
    let mut calls = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..bookings {
        tick.tick().await;
        let mut booker = bookers[n % bookers.len()].clone();
        calls.spawn(async move { booker.call().await });
    }
    let took: (DateTime<Utc>,) = sqlx::query_as("select clock_timestamp()").fetch_one(&mut *db).await?;
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    followed(db).await?;
    sqlx::query(
        "insert into scheduling.busy (appointment_id, version, provider_id, room_id, changed)
         select $1, 1, $1, $1, nextval('scheduling.busy_change')",
    )
    .bind(Uuid::nil())
    .execute(&mut *db)
    .await?;
    let effects = watcher.await??;
    let told: Vec<(Uuid, DateTime<Utc>)> =
        sqlx::query_as("select aggregate_id, created_at from appointments.outbox where created_at >= $1")
            .bind(since)
            .fetch_all(&mut *db)
            .await?;
    anyhow::ensure!(told.len() == bookings, "{} events were told of {bookings} bookings", told.len());
    let time =
        |(id, told): &(Uuid, DateTime<Utc>)| Some((*effects.get(id)? - *told).to_std().unwrap_or_default());
    let times: Option<Vec<Duration>> = told.iter().map(time).collect();
    let times = times.ok_or_else(|| anyhow::anyhow!("an effect was missed"))?;
    let mut figures = Times::new(times).figures();
    figures["per_second"] = (bookings as f64 / (took.0 - since).as_seconds_f64()).into();
    Ok(figures)
}

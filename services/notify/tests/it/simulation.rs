//! Weeks of a network in simulated time: bookings, moves, cancellations, withdrawn consent and changed numbers in two zones over a
//! change of clocks, with replicas killed at random and a provider that loses answers. Afterwards a judge who knows neither the service
//! nor its tables compares what the provider took with what should have been.
//!
//! `NOTIFY_SIM_BOOKINGS`, `NOTIFY_SIM_DAYS` and `NOTIFY_SIM_SEED` make it longer or another.

mod judge;
mod plot;
mod world;

use std::collections::HashMap;
use std::env;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection};

use judge::Taken;
use plot::{Deed, Plot};
use world::World;

/// Replicas at any time.
const REPLICAS: usize = 3;
/// A replica is killed at one in so many instants.
const KILLED_EVERY: u32 = 12;
/// Of so many calls to the provider in a hundred the answer, or the text, is lost.
const LOST_PERCENT: u32 = 1;
/// With no call under way for so many looks, whoever had something in hand has died or waits.
const STILL: u32 = 35;
/// Leases and waits after a lost answer end within this.
const LEASE: TimeDelta = TimeDelta::seconds(61);
/// Pause between two looks at the tables.
const LOOK: Duration = Duration::from_millis(15);
/// One instant is settled within so many looks, or never: two minutes of a machine that is not stopped meanwhile.
const MOST_LOOKS: u32 = 8_000;

fn knob(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reminder_due_is_sent_exactly_once_whatever_happens() {
    let (bookings, days) = (knob("NOTIFY_SIM_BOOKINGS", 250), knob("NOTIFY_SIM_DAYS", 3));
    let mut dice = StdRng::seed_from_u64(knob("NOTIFY_SIM_SEED", 7));
    let plot = Plot::write(&mut dice, bookings as usize, days as u32);
    let began = Instant::now();
    let mut world = World::start(&plot, LOST_PERCENT).await;
    world.to(plot.begin).await;
    for _ in 0..REPLICAS {
        world.add_replica();
    }
    let mut sql =
        PgConnection::connect(&world.servers.database_url(notify::NAME)).await.expect("a connection");
    testkit::until("the tables are made", || async {
        let mut sql = PgConnection::connect(&world.servers.database_url(notify::NAME)).await.ok()?;
        let made = sqlx::query_scalar::<_, bool>("select to_regclass('notify.notice') is not null");
        made.fetch_one(&mut sql).await.ok()?.then_some(())
    })
    .await;
    let (mut deeds, mut instants, mut killed) = (plot.deeds.iter().peekable(), 0_u32, 0_u32);
    let mut versions: HashMap<usize, i64> = HashMap::new();
    loop {
        let planned = next_look(&mut sql).await;
        let Some(next) = deeds.peek().map(|deed| deed.at).into_iter().chain(planned).min() else { break };
        if next > plot.end {
            break;
        }
        world.to(next).await;
        instants += 1;
        while let Some(deed) = deeds.next_if(|deed| deed.at <= next) {
            world.perform(&plot, deed, &mut versions).await;
        }
        heard(&mut sql, &versions).await;
        if dice.random_range(0..KILLED_EVERY) == 0 {
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..250))).await;
            world.kill_one(dice.random_range(0..REPLICAS));
            killed += 1;
        }
        settle(&world, &mut sql).await;
    }
    let taken: Vec<Taken> = world.taken().await;
    let verdict = judge::judge(&plot, &taken);
    println!(
        "{bookings} bookings over {days} days, {} deeds, {instants} instants, {killed} replicas killed, {} texts, {} reminders \
         due and sent, {} not due, {:.0?}",
        plot.deeds.len(),
        taken.len(),
        verdict.sent,
        verdict.not_due,
        began.elapsed(),
    );
    assert!(verdict.sent > 0 && verdict.faults.is_empty(), "\n{}", verdict.faults.join("\n"));
    assert!(plot.deeds.iter().any(|deed| matches!(deed.what, Deed::Withdraw)));
}

/// When somebody has something to look at next.
async fn next_look(sql: &mut PgConnection) -> Option<DateTime<Utc>> {
    sqlx::query_scalar(
        "select min(next_try) from (
             select next_try from notify.reminder where state in ('REMINDER_STATE_PLANNED', 'REMINDER_STATE_SENDING')
             union all select next_try from notify.notice) open",
    )
    .fetch_one(sql)
    .await
    .expect("an answer")
}

/// Waits until every deed has been heard of.
async fn heard(sql: &mut PgConnection, versions: &HashMap<usize, i64>) {
    let told: i64 = versions.values().sum();
    for _ in 0..MOST_LOOKS {
        let heard: Option<i64> = sqlx::query_scalar("select sum(version)::bigint from notify.visit")
            .fetch_one(&mut *sql)
            .await
            .expect("an answer");
        if heard.unwrap_or(0) == told {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("events were not applied");
}

/// Waits until nothing is due and nothing in hand; lets leases end where their holders died or wait.
async fn settle(world: &World, sql: &mut PgConnection) {
    let (mut still, mut left) = (0, 0);
    for _ in 0..MOST_LOOKS {
        let (due, open): (i64, i64) = sqlx::query_as(
            "select count(*) filter (where next_try <= clock.now()),
                    count(*) filter (where next_try <= clock.now() + interval '5 minutes')
             from (select next_try from notify.reminder
                   where state in ('REMINDER_STATE_PLANNED', 'REMINDER_STATE_SENDING')
                   union all select next_try from notify.notice) waiting",
        )
        .fetch_one(&mut *sql)
        .await
        .expect("an answer");
        if open == 0 {
            return;
        }
        left = open;
        still = if due > 0 || world.calls_under_way() > 0 { 0 } else { still + 1 };
        if still > STILL {
            world.servers.advance(LEASE).await;
            still = 0;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{left} things are never settled");
}

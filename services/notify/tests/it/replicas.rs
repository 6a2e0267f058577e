//! Several replicas and one queue.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use kit::ids::{MessageId, ReminderId};
use notify::handover::LEASE;
use notify::pace::Pace;
use notify::store::Message;
use notify::store::bulk::{self, Starting};
use notify::store::opt_out::NumberKey;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentState};
use proto::clinic::notify::v1::{
    Channel, DropReason, FailureReason, MessageKind, MessageState, ReminderState, TextEncoding,
};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::sending::{booked, due};
use crate::{PHONE, Suite, Visit, World};

async fn pool(suite: &Suite) -> PgPool {
    PgPoolOptions::new().connect(&suite.servers.database_url(notify::NAME)).await.expect("a pool")
}

/// The first reminder of a visit, as a replica that claimed it would hand it over.
async fn starting(suite: &Suite, pool: &PgPool, visit: &Visit) -> Starting {
    let reminder: ReminderId = suite.reminders(visit).await[0].id.parse().expect("an id");
    let lease =
        sqlx::query_scalar("select next_try from notify.reminder where id = $1").bind(reminder.uuid());
    let now = suite.servers.clock.now().trunc_subsecs(6);
    let message = Message {
        id: MessageId::new(),
        patient: Some(visit.patient),
        appointment: Some(visit.id),
        appointment_version: 1,
        reminder: Some(reminder),
        in_reply_to: None,
        kind: MessageKind::Reminder24h,
        channel: Channel::Sms,
        language: "en".to_owned(),
        state: MessageState::Sending,
        drop_reason: DropReason::Unspecified,
        failure_reason: FailureReason::Unspecified,
        provider_error_code: String::new(),
        body: "Harbor Clinic".to_owned(),
        encoding: TextEncoding::Gsm7,
        segments: 1,
        attempts: 1,
        version: 0,
        provider_reference: None,
        create_time: now,
        send_time: None,
        deliver_time: None,
        update_time: now,
    };
    let number = NumberKey::read(pool).await.expect("a key").hash(PHONE);
    Starting { reminder, lease: lease.fetch_one(pool).await.expect("a lease"), message, number }
}

/// The reminders that were started, within a bound: nobody waits for what another holds.
async fn start(pool: &PgPool, batch: &[Starting], now: DateTime<Utc>) -> HashSet<ReminderId> {
    let started = bulk::start(pool, batch, LEASE, now);
    let started = tokio::time::timeout(Duration::from_secs(20), started).await.expect("nobody is waited for");
    started.expect("started").into_keys().collect()
}

#[tokio::test]
async fn texts_are_started_and_settled_without_waiting_crosswise() {
    let suite = Suite::start().await;
    let pool = pool(&suite).await;
    let now = suite.servers.clock.now().trunc_subsecs(6);
    let (one, two) = (booked(&suite).await, booked(&suite).await);
    let batch = [starting(&suite, &pool, &one).await, starting(&suite, &pool, &two).await];
    let (free, held) = (batch[0].reminder, batch[1].reminder);

    // Another is changing the second: the first leaves, and is not kept for it.
    let mut another = pool.begin().await.expect("a transaction");
    let hold = sqlx::query("select from notify.reminder where id = $1 for update").bind(held.uuid());
    hold.execute(&mut *another).await.expect("held");
    assert_eq!(start(&pool, &batch, now).await, HashSet::from([free]));
    another.rollback().await.expect("let go");
    assert_eq!(start(&pool, &batch[1..], now).await, HashSet::from([held]));

    // Whoever settles both waits for the lower id before it takes the higher, whatever their order.
    let mut ids = batch.map(|one| one.message.id.uuid());
    ids.sort_unstable();
    let hold = "select from notify.message where id = $1 for update nowait";
    let mut another = pool.begin().await.expect("a transaction");
    sqlx::query(hold).bind(ids[0]).execute(&mut *another).await.expect("held");
    let settling = {
        let (pool, taken) = (pool.clone(), [ids[1], ids[0]].map(|id: Uuid| (id.into(), id.to_string())));
        tokio::spawn(async move {
            let mut tx = pool.begin().await?;
            let settled = bulk::taken(&mut tx, &taken, now).await?;
            tx.commit().await.map(|()| settled.len())
        })
    };
    testkit::until("it waits", async || {
        let waits =
            "select true from pg_stat_activity where wait_event_type = 'Lock' and query like 'with held%'";
        sqlx::query_scalar::<_, bool>(waits).fetch_optional(&pool).await.expect("asked")
    })
    .await;
    sqlx::query(hold).bind(ids[1]).execute(&mut *another).await.expect("nobody has it");
    another.commit().await.expect("let go");
    assert_eq!(settling.await.expect("no panic").expect("settled"), 2);
}

#[tokio::test]
async fn three_replicas_send_each_reminder_once() {
    const VISITS: usize = 150;
    let suite = Suite::of(World { sms_rate: 10_000, ..World::default() }).await;
    suite.replica().await;
    suite.replica().await;
    let visits: Vec<_> = (0..VISITS).map(|_| suite.visit()).collect();
    for visit in &visits {
        let event =
            AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
        suite.tell(visit, 1, &event).await;
    }
    for visit in &visits {
        suite.reminders_when(visit, |r| r.len() == 2).await;
    }
    due(&suite, &visits[0]).await;
    for visit in &visits {
        suite.reminders_when(visit, |r| r[0].state() == ReminderState::Sent).await;
    }
    let taken = suite.taken().await;
    let ids: HashSet<_> = taken.iter().filter_map(|text| text["sid"].as_str()).collect();
    assert_eq!((taken.len(), ids.len()), (VISITS, VISITS));
}

#[tokio::test]
async fn replicas_share_the_pace_of_a_sender() {
    let suite = Suite::start().await;
    let pool = pool(&suite).await;
    let replica = || Pace::new(pool.clone(), "+12025550198", 10);
    let (one, two) = (replica().book(5).await.expect("booked"), replica().book(5).await.expect("booked"));
    let every = Duration::from_millis(100);
    assert!(one.windows(2).chain(two.windows(2)).all(|pair| pair[1] - pair[0] == every));
    // The second queues behind the first, whenever it came.
    assert!(two[0] > one[0] && replica().wait().await.expect("a wait").is_zero());
    replica().book(100).await.expect("booked");
    assert!(!replica().wait().await.expect("a wait").is_zero());
}

//! Events take effect once at who follows them, however often they come and whatever stops in between.

use futures::future::join_all;
use kit::ids::{EventId, PatientId};
use kit::messaging::stream_name;
use testkit::until;

use crate::follower::Follower;
use crate::{TELLER, all_effects, deliver, effects, make_stream, schema, start_relay, tell};

#[tokio::test]
async fn an_event_that_comes_again_is_applied_once() {
    let follower = Follower::start().await;
    make_stream(&follower.js).await;
    let (repeated, id) = (PatientId::new(), EventId::new());
    deliver(&follower.js, id, repeated).await;
    deliver(&follower.js, id, repeated).await;
    follower.applied(repeated).await;
    deliver(&follower.js, id, repeated).await;
    let last = PatientId::new();
    deliver(&follower.js, EventId::new(), last).await;
    follower.applied(last).await;
    assert_eq!(effects(&follower.db, repeated).await, 1);
}

#[tokio::test]
async fn an_event_that_failed_once_comes_again_and_is_applied() {
    let follower = Follower::start().await;
    make_stream(&follower.js).await;
    let patient = PatientId::new();
    follower.effects.fail(patient, 1);
    deliver(&follower.js, EventId::new(), patient).await;
    follower.applied(patient).await;
    assert_eq!((effects(&follower.db, patient).await, follower.effects.deliveries(patient)), (1, 2));
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_database_stops_amid_a_batch() {
    let mut follower = Follower::start_waiting().await;
    make_stream(&follower.js).await;
    let patients: Vec<_> = (0..150).map(|_| PatientId::new()).collect();
    let (before, after) = patients.split_at(100);
    join_all(before.iter().map(|p| deliver(&follower.js, EventId::new(), *p))).await;
    follower.effects.entered.notified().await;
    follower.servers.postgres.stop().await;
    follower.effects.gate.add_permits(1);
    join_all(after.iter().map(|p| deliver(&follower.js, EventId::new(), *p))).await;
    follower.servers.postgres.start_again().await.unwrap();
    until("the effect of every event", || async {
        all_effects(&follower.db).await.filter(|n| *n >= patients.len() as i64)
    })
    .await;
    for patient in patients {
        assert_eq!(effects(&follower.db, patient).await, 1);
    }
}

#[tokio::test]
async fn a_follower_outlives_the_stream_it_follows() {
    let follower = Follower::start().await;
    let teller = schema(&follower.servers, TELLER).await;
    start_relay(&follower.servers, &teller).await;
    let (before, after) = (PatientId::new(), PatientId::new());
    tell(&teller, before, 1).await;
    follower.applied(before).await;
    follower.js.delete_stream(stream_name(TELLER)).await.unwrap();
    tell(&teller, after, 1).await;
    follower.applied(after).await;
    assert_eq!(effects(&follower.db, before).await, 1, "told again, but known");
}

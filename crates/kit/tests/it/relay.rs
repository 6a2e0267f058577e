//! Events leave a service after the commit that made them true, in order, once per id, whatever happens to the broker.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream;
use chrono::DateTime;
use futures::StreamExt as _;
use futures::future::join_all;
use kit::config::{LogFormat, Telemetry};
use kit::ids::PatientId;
use kit::messaging::{AGGREGATE_ID, AGGREGATE_VERSION, EVENT_ID, TIME, TRACEPARENT, outbox, stream_name};
use kit::telemetry;
use prost::Name as _;
use proto::clinic::patients::v1::PatientChanged;
use testkit::{Servers, until};
use tokio::sync::OnceCell;
use tracing::Instrument as _;

use crate::{TELLER, a_session, about, changed, header, schema, start_relay, stream, tell, told};

async fn world() -> (Servers, kit::db::Db, jetstream::Context) {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    let js = kit::messaging::jetstream(servers.broker().await);
    (servers, db, js)
}

#[tokio::test]
async fn an_event_is_told_only_after_its_commit() {
    let (servers, db, js) = world().await;
    start_relay(&servers, &db).await;
    let (early, late) = (PatientId::new(), PatientId::new());
    let mut open = db.begin().await.unwrap();
    outbox::put(&mut open, early, 1, &changed(early, 1)).await.unwrap();
    tell(&db, late, 1).await;
    let before: Vec<_> = told(&js, 1).await.iter().map(about).collect();
    assert_eq!(before, [(late, 1)]);
    open.commit().await.unwrap();
    let after: Vec<_> = told(&js, 2).await.iter().map(about).collect();
    assert_eq!(after, [(late, 1), (early, 1)], "its row is older than the one that was told before");
}

#[tokio::test]
async fn an_event_of_a_rolled_back_change_is_never_told() {
    let (servers, db, js) = world().await;
    start_relay(&servers, &db).await;
    let (undone, done) = (PatientId::new(), PatientId::new());
    let mut tx = db.begin().await.unwrap();
    outbox::put(&mut tx, undone, 1, &changed(undone, 1)).await.unwrap();
    tx.rollback().await.unwrap();
    tell(&db, done, 1).await;
    let all: Vec<_> = told(&js, 1).await.iter().map(about).collect();
    assert_eq!(all, [(done, 1)]);
}

#[tokio::test]
async fn events_of_one_patient_arrive_in_order_of_version() {
    const VERSIONS: i64 = 40;
    let (servers, db, js) = world().await;
    start_relay(&servers, &db).await;
    let patients: Vec<_> = (0..4).map(|_| PatientId::new()).collect();
    let tellers = patients.iter().map(|patient| async {
        for version in 1..=VERSIONS {
            tell(&db, *patient, version).await;
        }
    });
    join_all(tellers).await;
    let mut versions: BTreeMap<PatientId, Vec<i64>> = BTreeMap::new();
    for (patient, version) in told(&js, patients.len() * VERSIONS as usize).await.iter().map(about) {
        versions.entry(patient).or_default().push(version);
    }
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), patients);
    assert!(versions.values().all(|v| v.iter().copied().eq(1..=VERSIONS)), "{versions:?}");
}

#[tokio::test]
async fn what_was_committed_while_the_broker_was_dead_follows_once() {
    const EACH: usize = 100;
    let (mut servers, db, js) = world().await;
    start_relay(&servers, &db).await;
    let patients: Vec<_> = (0..2 * EACH).map(|_| PatientId::new()).collect();
    // Killed amid publishing: some of the first hundred are told, some are not, and of some the relay does not know.
    for patient in &patients[..EACH] {
        tell(&db, *patient, 1).await;
    }
    told(&js, 1).await;
    servers.nats.kill().await.unwrap();
    for patient in &patients[EACH..] {
        tell(&db, *patient, 1).await;
    }
    servers.nats.restart().await.unwrap();
    let messages = told(&js, patients.len()).await;
    until("every row marked as told", || async {
        let left: i64 = sqlx::query_scalar("select count(*) from outbox where published_at is null")
            .fetch_one(db.pool())
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    let ids: BTreeSet<_> = messages.iter().map(|m| header(&m.headers, EVENT_ID).to_owned()).collect();
    let told_about: BTreeSet<_> = messages.iter().map(|m| about(m).0).collect();
    assert_eq!((ids.len(), stream(&js).await.unwrap().len()), (patients.len(), patients.len()));
    assert_eq!(told_about, patients.into_iter().collect());
}

#[tokio::test]
async fn a_stream_that_vanished_is_made_and_filled_again_even_when_nothing_new_happens() {
    let (servers, db, js) = world().await;
    start_relay(&servers, &db).await;
    for version in 1..=3 {
        tell(&db, PatientId::new(), version).await;
    }
    let ids = |messages: Vec<_>| -> BTreeSet<String> {
        messages
            .iter()
            .map(|m: &jetstream::message::StreamMessage| header(&m.headers, EVENT_ID).to_owned())
            .collect()
    };
    let before = ids(told(&js, 3).await);
    js.delete_stream(stream_name(TELLER)).await.unwrap();
    assert_eq!(ids(told(&js, 3).await), before);
}

#[tokio::test]
async fn of_two_relays_one_publishes_and_the_other_takes_over() {
    let (servers, db, js) = world().await;
    let replica = kit::db::Db::new(&servers.database_url(TELLER), TELLER, 4).unwrap();
    // A plain subscriber sees every publication, also those that the stream would drop as duplicates.
    let broker = servers.broker().await;
    let mut published = broker.subscribe(format!("clinic.{TELLER}.>")).await.unwrap();
    broker.flush().await.unwrap();

    let first = start_relay(&servers, &db).await;
    tell(&db, PatientId::new(), 1).await;
    told(&js, 1).await;
    start_relay(&servers, &replica).await;
    a_session(&servers, "query like 'select pg_try_advisory_lock%'").await;
    for _ in 0..20 {
        tell(&db, PatientId::new(), 1).await;
        tell(&replica, PatientId::new(), 1).await;
    }
    told(&js, 41).await;
    first.cancel();
    tell(&replica, PatientId::new(), 1).await;
    told(&js, 42).await;

    let ids: Vec<String> = published
        .by_ref()
        .take(42)
        .map(|m| header(m.headers.as_ref().unwrap(), EVENT_ID).to_owned())
        .collect()
        .await;
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 42, "one was published twice: {ids:?}");
}

#[tokio::test]
async fn an_event_is_a_cloud_event_and_belongs_to_the_trace_that_caused_it() {
    static TRACES: OnceCell<telemetry::Guard> = OnceCell::const_new();
    let config = Telemetry { log: "off".into(), log_format: LogFormat::Pretty, otlp_endpoint: None };
    TRACES.get_or_init(|| async { telemetry::init(&config, "kit").unwrap() }).await;

    let (servers, db, js) = world().await;
    start_relay(&servers, &db).await;
    let (patient, other) = (PatientId::new(), PatientId::new());
    let traceparent = async {
        tell(&db, patient, 7).await;
        telemetry::current_traceparent().expect("a span is active")
    };
    let traceparent = traceparent.instrument(tracing::info_span!("request")).await;
    tell(&db, other, 1).await;

    let messages = told(&js, 2).await;
    let of = |patient| &messages.iter().find(|m| about(m).0 == patient).unwrap().headers;
    let headers = of(patient);
    let subject = PatientChanged::full_name();
    let id = header(headers, EVENT_ID);
    for (name, value) in [
        ("Nats-Msg-Id", id),
        ("ce-specversion", "1.0"),
        ("ce-type", &subject),
        ("ce-source", "/clinic/patients"),
        ("content-type", "application/protobuf"),
        (AGGREGATE_ID, &patient.to_string()),
        (AGGREGATE_VERSION, "7"),
        (TRACEPARENT, &traceparent),
    ] {
        assert_eq!(header(headers, name), value, "{name}");
    }
    assert!(messages.iter().all(|m| m.subject.as_str() == subject));
    assert!(uuid::Uuid::try_parse(id).is_ok(), "{id}");
    assert!(DateTime::parse_from_rfc3339(header(headers, TIME)).is_ok());
    assert_eq!(header(of(other), TRACEPARENT), "", "no span was active");
}

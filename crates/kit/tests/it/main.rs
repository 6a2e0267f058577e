//! The kit on real PostgreSQL and NATS: what services rely on when servers stop, streams vanish, callers repeat themselves and
//! tokens are forged.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should say so and fail"
)]

mod auth;
mod calls;
mod consume;
mod db;
mod dead_letters;
mod follower;
mod idempotency;
mod merges;
mod port;
mod relay;
mod stage;
mod stop;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, message::StreamMessage};
use kit::db::Db;
use kit::ids::{EventId, PatientId};
use kit::messaging::{self, outbox};
use prost::{Message as _, Name as _};
use proto::clinic::patients::v1::PatientChanged;
use sqlx::AssertSqlSafe;
use sqlx::migrate::Migrator;
use testkit::Servers;
use tokio_util::sync::CancellationToken;

/// The context whose events these tests tell and follow; also its schema and role.
pub(crate) const TELLER: &str = "patients";

/// A pool on `service`'s schema, which has the kit's tables and one of the test's own: `effect`, a row for each time that
/// something was done.
pub(crate) async fn schema(servers: &Servers, service: &str) -> Db {
    let db = Db::new(&servers.database_url(service), service, 16).unwrap();
    db.migrate(&Migrator::with_migrations(vec![])).await.unwrap();
    sqlx::query("create table effect (of uuid not null)").execute(db.pool()).await.unwrap();
    db
}

/// How often something was done for `of`.
pub(crate) async fn effects(db: &Db, of: impl Into<uuid::Uuid>) -> i64 {
    let query = sqlx::query_scalar("select count(*) from effect where of = $1").bind(of.into());
    query.fetch_one(db.pool()).await.unwrap()
}

/// How often something was done for anyone; `None` while the database is away.
pub(crate) async fn all_effects(db: &Db) -> Option<i64> {
    sqlx::query_scalar("select count(*) from effect").fetch_one(db.pool()).await.ok()
}

/// Waits until PostgreSQL has a session of which `condition` (on `pg_stat_activity`) is true.
pub(crate) async fn a_session(servers: &Servers, condition: &'static str) {
    let sql =
        format!("select exists (select from pg_stat_activity where pid <> pg_backend_pid() and {condition})");
    let look = || async {
        let mut admin = servers.admin().await;
        let found: bool = sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&mut admin).await.unwrap();
        found.then_some(())
    };
    testkit::until(&format!("a session with {condition}"), look).await;
}

/// An event about `patient`.
pub(crate) fn changed(patient: PatientId, version: i64) -> PatientChanged {
    PatientChanged { patient_id: patient.to_string(), version, ..Default::default() }
}

/// Commits one event about `patient` in the teller's outbox.
pub(crate) async fn tell(db: &Db, patient: PatientId, version: i64) {
    let mut tx = db.begin().await.unwrap();
    outbox::put(&mut tx, patient, version, &changed(patient, version)).await.unwrap();
    tx.commit().await.unwrap();
}

/// Starts a relay of the teller's outbox, as one replica would; it stops with `servers` or with the token.
pub(crate) async fn start_relay(servers: &Servers, db: &Db) -> CancellationToken {
    let stop = servers.stop.child_token();
    let nats = messaging::connect(&servers.nats.url(), TELLER).await.unwrap();
    tokio::spawn(outbox::relay(db.clone(), nats, TELLER, stop.clone()));
    stop
}

/// Everything on the teller's stream, oldest first; `None` while the broker or the stream is away.
pub(crate) async fn stream(js: &jetstream::Context) -> Option<Vec<StreamMessage>> {
    let stream = js.get_stream(messaging::stream_name(TELLER)).await.ok()?;
    let state = &stream.cached_info().state;
    let mut messages = vec![];
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        messages.push(stream.get_raw_message(sequence).await.ok()?);
    }
    Some(messages)
}

/// Waits until the teller's stream has at least `count` messages.
pub(crate) async fn told(js: &jetstream::Context, count: usize) -> Vec<StreamMessage> {
    let enough = || async { stream(js).await.filter(|messages| messages.len() >= count) };
    testkit::until(&format!("{count} events on the stream"), enough).await
}

/// The text of a message's header, empty when it has none.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.as_str())
}

/// The patient and version that a message is about.
pub(crate) fn about(message: &StreamMessage) -> (PatientId, i64) {
    let event = PatientChanged::decode(message.payload.clone()).unwrap();
    (event.patient_id.parse().unwrap(), event.version)
}

/// Delivers an event about `patient` to the stream, under an id of the test's choice and past the broker's own deduplication.
pub(crate) async fn deliver(js: &jetstream::Context, id: EventId, patient: PatientId) {
    let mut headers = HeaderMap::new();
    headers.insert(messaging::EVENT_ID, id.to_string());
    headers.insert(messaging::AGGREGATE_ID, patient.to_string());
    headers.insert(messaging::AGGREGATE_VERSION, "1");
    headers.insert(messaging::TIME, kit::clock::Clock::System.now().to_rfc3339());
    let payload = changed(patient, 1).encode_to_vec().into();
    let sent = js.publish_with_headers(PatientChanged::full_name(), headers, payload).await;
    sent.unwrap().await.unwrap();
}

/// The teller's stream, for tests in which no relay makes it.
pub(crate) async fn make_stream(js: &jetstream::Context) {
    let name = messaging::stream_name(TELLER);
    let subjects = vec![format!("clinic.{TELLER}.>")];
    js.create_stream(jetstream::stream::Config { name, subjects, ..Default::default() }).await.unwrap();
}

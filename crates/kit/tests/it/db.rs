//! Connections that die while nobody uses them.

use kit::db::Db;
use testkit::{Servers, until};

use crate::TELLER;

#[tokio::test]
async fn a_transaction_begins_although_the_connection_in_the_pool_has_just_died() {
    let servers = Servers::start().await;
    let mut admin = servers.admin().await;
    let db = Db::new(&servers.database_url(TELLER), TELLER, 1).unwrap().by_key();
    let session: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(db.pool()).await.unwrap();
    until("the connection is back", async || (db.pool().num_idle() == 1).then_some(())).await;
    sqlx::query("select pg_terminate_backend($1)").bind(session).execute(&mut admin).await.unwrap();
    let lives = "select exists (select from pg_stat_activity where pid = $1)";
    while sqlx::query_scalar(lives).bind(session).fetch_one(&mut admin).await.unwrap() {}
    let mut tx = db.begin().await.unwrap();
    let another: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
    assert_ne!(another, session);
}

#[tokio::test]
async fn an_outage_that_readiness_meets_leaves_no_dead_connection_in_the_pool() {
    const CONNECTIONS: u32 = 4;
    let mut servers = Servers::start().await;
    let db = Db::new(&servers.database_url(TELLER), TELLER, CONNECTIONS).unwrap();
    let mut used = vec![];
    for _ in 0..CONNECTIONS {
        used.push(db.pool().acquire().await.unwrap());
    }
    drop(used);
    until("all are back", async || (db.pool().num_idle() == CONNECTIONS as usize).then_some(())).await;
    servers.postgres.stop().await;
    db.ping().await.unwrap_err();
    until("none is left", async || (db.pool().size() == 0).then_some(())).await;
    servers.postgres.start_again().await.unwrap();
    db.ping().await.unwrap();
}

//! NATS: streams, faults, ports.

use std::net::TcpListener;
use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use servers::{Nats, NatsOptions, RunFolder};

use crate::{BOUND, binaries, nats};

/// How long a frozen server is watched for an answer.
const SHORT: Duration = Duration::from_millis(200);

async fn client(nats: &Nats) -> async_nats::Client {
    async_nats::connect(nats.url()).await.unwrap()
}

async fn messages(nats: &Nats) -> u64 {
    let mut stream = jetstream::new(client(nats).await).get_stream("KEPT").await.unwrap();
    stream.info().await.unwrap().state.messages
}

async fn publish(nats: &Nats) {
    let context = jetstream::new(client(nats).await);
    let config = Config { name: "KEPT".to_owned(), subjects: vec!["kept".to_owned()], ..Config::default() };
    context.get_or_create_stream(config).await.unwrap();
    context.publish("kept", "one".into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn messages_survive_a_restart_and_a_kill() {
    let run = RunFolder::create(None).unwrap();
    let mut nats = nats(&run).await;
    let url = nats.url();
    publish(&nats).await;
    nats.restart().await.unwrap();
    assert_eq!(messages(&nats).await, 1);

    publish(&nats).await;
    nats.kill().await.unwrap();
    assert_eq!(nats.pid(), None);
    nats.restart().await.unwrap();
    assert_eq!(messages(&nats).await, 2);
    assert_eq!(nats.url(), url);
}

#[tokio::test]
async fn a_durable_store_is_found_again() {
    let run = RunFolder::create(None).unwrap();
    let options = || NatsOptions { data_dir: run.path().join("stays").into(), port: 0, durable: true };
    let first = Nats::start(&binaries().await, options()).await.unwrap();
    publish(&first).await;
    drop(first);
    let second = Nats::start(&binaries().await, options()).await.unwrap();
    assert_eq!(messages(&second).await, 1);
}

#[tokio::test]
async fn a_paused_server_is_silent_until_resumed() {
    let run = RunFolder::create(None).unwrap();
    let nats = nats(&run).await;
    let context = jetstream::new(client(&nats).await);
    nats.pause().await.unwrap();
    assert!(tokio::time::timeout(SHORT, context.query_account()).await.is_err());
    nats.resume().unwrap();
    tokio::time::timeout(BOUND, context.query_account()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_paused_server_can_be_stopped() {
    let run = RunFolder::create(None).unwrap();
    let mut nats = nats(&run).await;
    nats.pause().await.unwrap();
    tokio::time::timeout(BOUND, nats.stop()).await.unwrap();
    assert_eq!(nats.pid(), None);
}

#[tokio::test]
async fn a_taken_port_is_said_in_one_sentence() {
    let run = RunFolder::create(None).unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = NatsOptions { data_dir: run.data_dir("nats"), port, durable: false };
    let refused = Nats::start(&binaries().await, options).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "NATS cannot listen on 127.0.0.1:{port} because the port is taken: choose another, or 0 for a free one"
        )
    );
}

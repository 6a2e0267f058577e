//! The other commands.

use std::process::Output;

use crate::process::{Home, words};

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn token_prints_a_token_and_nothing_else() {
    let home = Home::new();
    let output = home.run(&["token", "--role", "front_desk"]).await;
    let text = printed(&output);
    assert!(output.status.success() && text.lines().count() == 1, "{text}{}", words(&output));
    assert_eq!(text.trim().split('.').count(), 3);
    assert!(output.stderr.is_empty(), "{}", words(&output));
}

#[tokio::test]
async fn a_token_of_no_role_or_of_no_patient_is_refused_with_a_hint() {
    let home = Home::new();
    let unknown = home.run(&["token", "--role", "boss"]).await;
    assert!(!unknown.status.success() && words(&unknown).contains("front_desk"), "{}", words(&unknown));
    let nobody = home.run(&["token", "--role", "patient"]).await;
    assert!(!nobody.status.success() && words(&nobody).contains("--subject"), "{}", words(&nobody));
}

#[tokio::test]
async fn help_has_examples_for_every_command() {
    let home = Home::new();
    for command in ["up", "token", "dlq", "bootstrap", "probe"] {
        let output = home.run(&[command, "--help"]).await;
        assert!(printed(&output).contains("Example"), "clinic {command} --help has no example");
    }
}

#[tokio::test]
async fn bootstrap_prepares_a_database_twice_and_names_missing_passwords() {
    let home = Home::new();
    let servers = testkit::Servers::start().await;
    let identity = home.data().join("identity");
    let run = async |passwords: bool| {
        let mut command = home.command(&["bootstrap", "--identity-dir", identity.to_str().unwrap()]);
        command.env("DATABASE_ADMIN_URL", servers.postgres.admin_url());
        for name in kit::bootstrap::SCHEMAS.iter().filter(|_| passwords) {
            command.env(format!("{}_DB_PASSWORD", name.to_uppercase()), "secret");
        }
        command.output().await.unwrap()
    };
    let refused = run(false).await;
    assert!(
        !refused.status.success() && words(&refused).contains("BILLING_DB_PASSWORD"),
        "{}",
        words(&refused)
    );
    for _ in 0..2 {
        let output = run(true).await;
        assert!(output.status.success(), "{}", words(&output));
    }
    let keys = std::fs::read(identity.join("service.pem")).unwrap();
    run(true).await;
    assert_eq!(keys, std::fs::read(identity.join("service.pem")).unwrap(), "what is there stays");
}

#[tokio::test]
async fn probe_tells_ready_from_not() {
    let home = Home::new();
    let (listener, url) = testkit::listener().await;
    let address = url.trim_start_matches("http://").to_owned();
    let ready: kit::serve::Ready = std::sync::Arc::new(|| Box::pin(async { Ok(()) }));
    let stop = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(kit::serve::serve(listener, kit::serve::probes(ready), stop.clone()));
    assert!(home.run(&["probe", &address]).await.status.success());
    let elsewhere = home.run(&["probe", &address, "--path", "/nothing"]).await;
    assert!(!elsewhere.status.success());
    stop.cancel();
    server.await.unwrap().unwrap();
    assert!(!home.run(&["probe", &address]).await.status.success());
}

#[tokio::test]
async fn dlq_lists_nothing_on_a_fresh_broker_and_says_where_it_looked_when_there_is_none() {
    let home = Home::new();
    let servers = testkit::Servers::start().await;
    let listed = home.run(&["dlq", "--nats-url", &servers.nats.url(), "list"]).await;
    assert_eq!(printed(&listed), "no event waits\n");
    let nowhere = home.run(&["dlq", "--nats-url", "nats://127.0.0.1:9", "list"]).await;
    assert!(!nowhere.status.success() && words(&nowhere).contains("--nats-url"), "{}", words(&nowhere));
}

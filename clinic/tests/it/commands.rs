//! The other commands.

use std::process::Output;

use proto::clinic::patients::v1::GetPatientRequest;

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

#[tokio::test]
async fn check_access_log_names_the_first_row_that_somebody_edited_deleted_or_moved() {
    let home = Home::new();
    let suite = testkit::suite::RunningSuite::start().await;
    let patient = suite.network().await.patient(&suite.desk(), "").await;
    for _ in 0..4 {
        let request = GetPatientRequest { patient_id: patient.clone(), ..Default::default() };
        suite.desk().patients().get_patient(request).await.unwrap();
    }
    let servers = suite.stop().await;
    let check = async || {
        let mut command = home.command(&["check", "access-log"]);
        command.env("DATABASE_URL", servers.database_url(patients::NAME)).output().await.unwrap()
    };
    let good = check().await;
    assert!(good.status.success(), "{}", words(&good));
    assert_eq!(printed(&good), "all 5 rows of the access log are as they were written\n");

    let mut superuser = servers.admin().await;
    let chain: i16 = sqlx::query_scalar("select max(chain) from patients.access_log where sequence = 5")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    for (forgery, row) in [
        ("update patients.access_log set actor = 'nobody' where sequence = 4", 4),
        ("update patients.access_log set sequence = 5 - sequence where sequence in (2, 3)", 2),
        ("delete from patients.access_log where sequence = 1", 1),
    ] {
        // Statement by statement, as a unique key would not let two rows change places at once.
        let sql = format!(
            "alter table patients.access_log disable trigger access_log_append_only;
             alter table patients.access_log drop constraint if exists access_log_pkey;
             {forgery};
             alter table patients.access_log enable trigger access_log_append_only"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut superuser).await.unwrap();
        let found = check().await;
        assert!(!found.status.success());
        let named = format!("row {row} of chain {chain} ");
        assert!(words(&found).contains(&named), "{named} is not in: {}", words(&found));
    }
}

//! Starting, stopping, and the sentences when it cannot be done.

use std::time::Duration;

use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::ListClinicsRequest;
use testkit::network::Network;
use testkit::until;

use crate::process::{Home, http, is_alive, words};

#[tokio::test]
async fn it_prints_one_screen_keeps_its_data_and_stops_with_its_children() {
    let home = Home::new();
    let up = home.up(&["--no-demo"]).await;
    for part in ["gateway", "sandbox", "export TOKEN=ey", "grpcurl -plaintext localhost:"] {
        assert!(up.screen.contains(part), "no {part:?} on the screen:\n{}", up.screen);
    }
    let network = Network::build(&up.desk(Role::Admin), kit::clock::Clock::System.now()).await;
    let postgres = up.postgres_pid().unwrap();
    assert!(up.stop().await.success());
    assert!(!is_alive(postgres), "PostgreSQL outlived the suite");

    let up = home.up(&["--no-demo"]).await;
    let clinics = up.desk(Role::Admin).catalog().list_clinics(ListClinicsRequest::default()).await.unwrap();
    assert_eq!(clinics.into_inner().clinics[0].id, network.clinic);
    assert!(up.stop().await.success());
}

#[tokio::test]
async fn a_second_copy_runs_beside_the_first_but_not_on_its_data_or_port() {
    let (home, other) = (Home::new(), Home::new());
    let first = home.up(&["--no-demo"]).await;
    let second = other.up(&["--no-demo"]).await;
    assert_ne!(first.url("gateway"), second.url("gateway"));
    assert!(second.stop().await.success());

    let same_data = home.run(&["up", "--no-demo"]).await;
    let said = words(&same_data);
    assert!(!same_data.status.success());
    assert!(said.contains("--data-dir") && said.contains(&first.pid().to_string()), "{said}");

    let port = first.url("gateway").rsplit(':').next().unwrap().to_owned();
    let same_port = other.run(&["up", "--no-demo", "--port", &port]).await;
    let said = words(&same_port);
    assert!(!same_port.status.success());
    assert!(
        said.contains(&format!("cannot listen on 127.0.0.1:{port}")) && said.contains("another port"),
        "{said}"
    );
    assert!(first.stop().await.success());
}

#[tokio::test]
async fn an_ephemeral_suite_leaves_nothing() {
    let home = Home::new();
    let mut command = home.command(&["up", "--ephemeral", "--no-demo", "--port", "0"]);
    command.env_remove("CLINIC_DATA_DIR").env("CLINIC_RUN_DIR", home.data());
    let up = crate::process::Up::started(command.spawn().unwrap(), &home.data()).await;
    assert!(up.stop().await.success());
    let left = || std::fs::read_dir(home.data()).map(|entries| entries.count()).unwrap_or(0);
    until("the run folder's end", async || (left() == 0).then_some(())).await;
}

#[tokio::test]
async fn postgresql_that_dies_by_itself_is_started_again() {
    let home = Home::new();
    let up = home.up(&["--no-demo"]).await;
    let before = up.postgres_pid().unwrap();
    crate::process::signal(before, "KILL").await;
    let gateway = up.url("gateway");
    testkit::until_within(Duration::from_secs(30), "readiness on a new PostgreSQL", async || {
        let ready = http("GET", &format!("{gateway}/readyz"), "").await.0 == 200;
        (ready && up.postgres_pid().is_some_and(|pid| pid != before)).then_some(())
    })
    .await;
    assert!(up.stop().await.success());
}

#[tokio::test]
async fn simulated_time_moves_by_a_sandbox_call_and_goes_on_after_a_restart() {
    let home = Home::new();
    let up = home.up(&["--no-demo", "--sim-clock"]).await;
    let (status, body) =
        http("POST", &format!("{}/sandbox/clock", up.url("sandbox")), "{\"advance_secs\": 86400}").await;
    assert_eq!(status, 200, "{body}");
    assert!(up.stop().await.success());

    let without = home.run(&["up", "--no-demo", "--port", "0"]).await;
    assert!(words(&without).contains("--sim-clock"), "{}", words(&without));
    let up = home.up(&["--no-demo", "--sim-clock"]).await;
    let (_, body) = http("GET", &format!("{}/sandbox/clock", up.url("sandbox")), "").await;
    let tomorrow = kit::clock::Clock::System.now() + chrono::TimeDelta::hours(23);
    let now = body.split('"').find(|part| part.starts_with("20")).unwrap();
    assert!(now.parse::<chrono::DateTime<chrono::Utc>>().unwrap() > tomorrow, "{body}");
    assert!(up.stop().await.success());
}

#[tokio::test]
async fn on_the_real_clock_the_sandbox_refuses_to_move_it() {
    let home = Home::new();
    let up = home.up(&["--no-demo"]).await;
    let (status, _) =
        http("POST", &format!("{}/sandbox/clock", up.url("sandbox")), "{\"advance_secs\": 60}").await;
    assert_eq!(status, 409);
    assert!(up.stop().await.success());
}

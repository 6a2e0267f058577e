//! Races for one intake: one winner, and a history that tells of it alone.

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{AccessAction, IntakeCompleted, IntakeState};
use tonic::Code;

use super::{COMPLETE, SCHEMA, draft, full, submit};
use crate::{Suite, nobody};

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_submits_one_wins_and_one_event_and_one_row_tell_of_it() {
    const RACERS: usize = 12;
    let suite = Suite::start().await;
    let (patient, intake) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let before = suite.looks(&patient.id).await.len();
    let racers = (0..RACERS).map(|i| {
        let mut client = suite.intakes(Role::Patient, &patient.id);
        let answers = format!(r#"{{"smokes": "no", "allergies": [{{"name": "racer {i}"}}]}}"#);
        let mut request = submit(&intake, &answers);
        request.request_id = nobody();
        tokio::spawn(async move { client.submit_intake(request).await.map(|_| answers) })
    });
    let mut won = vec![];
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.expect("no panic") {
            Ok(answers) => won.push(answers),
            Err(status) => {
                assert_eq!(
                    (status.code(), kit::status::reason(&status).as_str()),
                    (Code::FailedPrecondition, "WRONG_STATE")
                );
            }
        }
    }
    assert_eq!(won.len(), 1);
    let shown = suite.intakes(Role::Patient, &patient.id).get_intake(full(&intake.id)).await;
    let shown = shown.expect("shown").into_inner();
    assert_eq!((shown.state(), shown.etag.as_str()), (IntakeState::Submitted, "2"));
    let winner = won[0].split_once("racer").expect("its answers").1;
    assert!(shown.answers_json.contains(winner.trim_end_matches("\"}]}")));
    let looks = suite.looks(&patient.id).await;
    let writes = looks[before..].iter().filter(|row| row.action() == AccessAction::Update).count();
    assert_eq!(writes, 1);
    let told: i64 =
        sqlx::query_scalar("select count(*) from patients.outbox where subject like '%IntakeCompleted'")
            .fetch_one(&mut suite.servers.admin().await)
            .await
            .expect("counted");
    assert_eq!(told, 1);
    let events: Vec<IntakeCompleted> = testkit::collect(&suite.servers.broker().await, "patients", 1).await;
    assert_eq!(events[0].intake_id, intake.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_races_a_submit_never_changes_what_was_submitted() {
    const ROUNDS: usize = 8;
    let suite = Suite::start().await;
    let form = suite.published(SCHEMA).await.id;
    for round in 0..ROUNDS {
        let (patient, intake) = suite.asked(&form).await;
        let (mut desk, mut own) =
            (suite.intakes(Role::FrontDesk, "ana"), suite.intakes(Role::Patient, &patient.id));
        let (saved, submitted) = tokio::join!(
            desk.save_intake_draft(draft(&intake, "{}")),
            own.submit_intake(submit(&intake, COMPLETE))
        );
        assert_ne!(saved.is_ok(), submitted.is_ok(), "round {round}");
        let shown = own.get_intake(full(&intake.id)).await.expect("shown").into_inner();
        let expected =
            if submitted.is_ok() { (IntakeState::Submitted, true) } else { (IntakeState::Draft, false) };
        assert_eq!((shown.state(), shown.answers_json.contains("zanthorrhoea")), expected, "round {round}");
    }
}

//! Drafts and submitted answers: what is wrong is named by its place, nobody else reads them, each look is logged.

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    AccessAction, Form, GetIntakeRequest, IntakeCompleted, IntakeState, PublishFormRequest,
};
use tonic::Code;

use super::{COMPLETE, SCHEMA, by_appointment, draft, form, full, submit, words};
use crate::{Suite, bad_fields, nobody, refused};

#[tokio::test]
async fn a_draft_says_what_is_missing_and_is_submitted_once() {
    let suite = Suite::start().await;
    let published = suite.published(SCHEMA).await;
    let (patient, intake) = suite.asked(&published.id).await;
    assert_eq!((intake.state(), intake.form_version), (IntakeState::Open, 1));
    let mut own = suite.intakes(Role::Patient, &patient.id);

    let begun = r#"{"smokes": "no", "allergies": [{"since": 2019}]}"#;
    let saved = own.save_intake_draft(draft(&intake, begun)).await.expect("saved").into_inner();
    assert_eq!((saved.state(), saved.answers_json.as_str()), (IntakeState::Draft, ""));
    let problems: Vec<_> =
        saved.problems.iter().map(|p| (p.pointer.as_str(), p.description.as_str())).collect();
    assert_eq!(problems, [("/allergies/0/name", "is required")]);
    let shown = own.get_intake(full(&intake.id)).await.expect("shown").into_inner();
    assert_eq!(shown.answers_json, r#"{"allergies":[{"since":2019}],"smokes":"no"}"#);
    assert_eq!(shown.problems, saved.problems);

    let early = refused(own.submit_intake(submit(&saved, "")).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_fields(&early), ["answers_json/allergies/0/name"]);
    refused(own.submit_intake(submit(&intake, COMPLETE)).await, Code::Aborted, "ETAG_MISMATCH");

    let saved = own.save_intake_draft(draft(&saved, COMPLETE)).await.expect("saved").into_inner();
    assert_eq!(saved.problems, []);
    let mut request = submit(&saved, "");
    request.request_id = nobody();
    let done = own.submit_intake(request.clone()).await.expect("submitted").into_inner();
    assert_eq!((done.state(), done.submit_time.is_some()), (IntakeState::Submitted, true));
    assert_eq!(own.submit_intake(request).await.expect("the same again").into_inner(), done);
    refused(own.submit_intake(submit(&done, COMPLETE)).await, Code::FailedPrecondition, "WRONG_STATE");
    refused(own.save_intake_draft(draft(&done, "{}")).await, Code::FailedPrecondition, "WRONG_STATE");

    let told: Vec<IntakeCompleted> = testkit::collect(&suite.servers.broker().await, "patients", 1).await;
    let event = &told[0];
    assert_eq!((&event.intake_id, &event.appointment_id), (&done.id, &done.appointment_id));
    assert_eq!((event.version, event.form_version, &event.form_id), (1, 1, &published.id));
    let shown = own.get_intake(full(&intake.id)).await.expect("shown").into_inner();
    assert_eq!((shown.answers_json.contains("zanthorrhoea"), shown.problems.len()), (true, 0));
}

#[tokio::test]
async fn every_wrong_answer_is_named_and_none_is_repeated() {
    let suite = Suite::start().await;
    let (patient, intake) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let mut own = suite.intakes(Role::Patient, &patient.id);
    let wrong = r#"{"smokes": "quokka", "born": "quokka", "call": "quokka", "quokka": {"quokka": 1},
                    "allergies": [{"name": "q"}, "quokka", {"name": 7, "since": "quokka"}]}"#;
    let status =
        refused(own.submit_intake(submit(&intake, wrong)).await, Code::InvalidArgument, "INVALID_FIELD");
    let mut named = bad_fields(&status);
    named.sort();
    let expected = [
        "answers_json",
        "answers_json/allergies/0/name",
        "answers_json/allergies/1",
        "answers_json/allergies/2/name",
        "answers_json/allergies/2/since",
        "answers_json/born",
        "answers_json/call",
        "answers_json/smokes",
    ];
    assert_eq!(named, expected);
    assert!(!words(&status).contains("quokka"), "{}", words(&status));

    let deep = format!("{}{}", r#"{"quokka":"#.repeat(60), "1");
    let many = format!("{{\"quokka\": [{}1]}}", "1,".repeat(3_000));
    let big = format!("{{\"quokka\": \"{}\"}}", "q".repeat(70_000));
    for bad in ["", "quokka", "[\"quokka\"]", "\"quokka\"", "{\"quokka\": 1e999}", &deep, &many, &big] {
        let saved = own.save_intake_draft(draft(&intake, bad)).await;
        let status = refused(saved, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_fields(&status), ["answers_json"]);
        assert!(!words(&status).contains("quokka"), "{}", words(&status));
    }
    refused(own.submit_intake(submit(&intake, "")).await, Code::InvalidArgument, "INVALID_FIELD");
}

#[tokio::test]
async fn a_flood_of_wrong_answers_is_named_within_bounds() {
    let suite = Suite::start().await;
    let (patient, intake) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let wrong = format!("{{\"smokes\": \"no\", \"allergies\": [{}{{}}]}}", "{},".repeat(999));
    let mut own = suite.intakes(Role::Patient, &patient.id);
    let saved = own.save_intake_draft(draft(&intake, &wrong)).await.expect("kept").into_inner();
    assert_eq!(saved.problems.len(), 100);
    let status = refused(own.submit_intake(submit(&saved, "")).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_fields(&status).len(), 50);
}

#[tokio::test]
async fn answers_are_judged_by_the_version_they_were_asked_in() {
    let suite = Suite::start().await;
    let first = suite.published(SCHEMA).await;
    let (patient, intake) = suite.asked(&first.id).await;
    let stricter = Form { etag: first.etag, ..form(r#"{"type": "object", "required": ["more"]}"#) };
    let request = PublishFormRequest {
        form_id: first.id.clone(),
        form: Some(stricter),
        ..PublishFormRequest::default()
    };
    suite.intakes(Role::Manager, "max").publish_form(request).await.expect("published");
    let mut own = suite.intakes(Role::Patient, &patient.id);
    let done = own.submit_intake(submit(&intake, COMPLETE)).await.expect("submitted").into_inner();
    assert_eq!(done.form_version, 1);
    let (_, later) = suite.asked(&first.id).await;
    assert_eq!(later.form_version, 2);
}

#[tokio::test]
async fn nobody_reaches_anothers_intake_and_services_and_admins_see_no_answers() {
    let suite = Suite::start().await;
    let (patient, intake) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let mut foreign = suite.intakes(Role::Patient, &nobody());
    refused(foreign.get_intake(full(&intake.id)).await, Code::NotFound, "INTAKE_NOT_FOUND");
    let by_visit = by_appointment(&intake.appointment_id);
    refused(foreign.get_intake(by_visit.clone()).await, Code::NotFound, "INTAKE_NOT_FOUND");
    refused(foreign.save_intake_draft(draft(&intake, "{}")).await, Code::NotFound, "INTAKE_NOT_FOUND");
    refused(foreign.submit_intake(submit(&intake, COMPLETE)).await, Code::NotFound, "INTAKE_NOT_FOUND");
    let mut desk = suite.intakes(Role::FrontDesk, "ana");
    refused(desk.get_intake(full(&nobody())).await, Code::NotFound, "INTAKE_NOT_FOUND");
    let unnamed = desk.get_intake(GetIntakeRequest::default()).await;
    assert_eq!(bad_fields(&refused(unnamed, Code::InvalidArgument, "INVALID_FIELD")), ["intake_id"]);

    desk.save_intake_draft(draft(&intake, COMPLETE)).await.expect("the desk may");
    let mut service = suite.intakes(Role::Service, "notify");
    refused(service.get_intake(full(&intake.id)).await, Code::PermissionDenied, "VIEW_NOT_ALLOWED");
    assert_eq!(service.get_intake(by_visit).await.expect("how far").into_inner().answers_json, "");
    let mut admin = suite.intakes(Role::Admin, "root");
    refused(admin.get_intake(full(&intake.id)).await, Code::PermissionDenied, "BREAK_GLASS_REQUIRED");
    let reason = "complaint of 9 March".to_owned();
    let shown = admin.get_intake(GetIntakeRequest { break_glass_reason: reason, ..full(&intake.id) }).await;
    assert!(shown.expect("with a reason").into_inner().answers_json.contains("zanthorrhoea"));

    let told: Vec<_> = suite.looks(&patient.id).await.into_iter().rev().take(3).collect();
    assert_eq!(
        (told[0].actor.as_str(), told[0].break_glass_reason.as_str()),
        ("root", "complaint of 9 March")
    );
    assert_eq!((told[1].actor.as_str(), told[1].fields.as_slice()), ("notify", &["intake".to_owned()][..]));
    assert_eq!((told[2].actor.as_str(), told[2].action()), ("ana", AccessAction::Update));
}

#[tokio::test]
async fn every_look_at_an_intake_leaves_its_row_and_a_refused_one_none() {
    let suite = Suite::start().await;
    let (patient, intake) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let before = suite.looks(&patient.id).await;
    assert_eq!((before[0].actor.as_str(), before[0].action()), ("appointments", AccessAction::Create));
    let mut own = suite.intakes(Role::Patient, &patient.id);
    own.get_intake(full(&intake.id)).await.expect("shown");
    own.submit_intake(submit(&intake, "{}")).await.expect_err("not complete");
    own.save_intake_draft(draft(&intake, "{}")).await.expect("saved");
    let looks = suite.looks(&patient.id).await;
    let told: Vec<_> = looks[before.len()..].iter().map(|e| (e.action(), e.fields.join(" "))).collect();
    let expected = [(AccessAction::Read, "intake intake.answers"), (AccessAction::Update, "intake.answers")];
    assert_eq!(told, expected.map(|(action, fields)| (action, fields.to_owned())));
    assert_eq!(looks[before.len()].method, "clinic.patients.v1.IntakeService/GetIntake");
}

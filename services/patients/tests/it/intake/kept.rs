//! Answers at rest, and after a merge.

use patients::seal::Keys;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{IntakeState, MergePatientsRequest};
use tonic::Code;

use super::{COMPLETE, SCHEMA, by_appointment, draft, full, submit};
use crate::{Suite, nobody, refused, someone};

#[tokio::test]
async fn no_table_shows_an_answer() {
    let suite = Suite::start().await;
    let (patient, intake) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let mut own = suite.intakes(Role::Patient, &patient.id);
    let mut saving = draft(&intake, COMPLETE);
    saving.request_id = nobody();
    let saved = own.save_intake_draft(saving).await.expect("saved").into_inner();
    let mut submitting = submit(&saved, COMPLETE);
    submitting.request_id = nobody();
    own.submit_intake(submitting).await.expect("submitted");

    let mut admin = suite.servers.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'patients'",
    )
    .fetch_all(&mut admin)
    .await
    .expect("the tables");
    let mut rows = 0;
    for table in tables {
        let sql = format!("select t::text from {table} t");
        let texts: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut admin).await.expect("its rows");
        rows += texts.len();
        for spelling in ["zanthorrhoea", "7a616e74686f7272686f6561"] {
            assert!(!texts.iter().any(|text| text.contains(spelling)), "an answer stands in {table}");
        }
    }
    assert!(rows > 0);
}

#[tokio::test]
async fn a_new_key_seals_answers_anew_and_they_stay_readable() {
    let suite = Suite::start().await;
    let (patient, intake) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let mut own = suite.intakes(Role::Patient, &patient.id);
    let saved = own.save_intake_draft(draft(&intake, COMPLETE)).await.expect("saved").into_inner();
    let file = suite.servers.identity().service_key_file.with_file_name("patients.keys");
    assert_eq!(Keys::add(&file).expect("added"), 2);
    testkit::until("the end of the old key", async || {
        let old: i64 = sqlx::query_scalar(
            "select count(*) from patients.intake where substring(answers from 1 for 4) <> '\\x00000002'",
        )
        .fetch_one(&mut suite.servers.admin().await)
        .await
        .expect("counted");
        (old == 0).then_some(())
    })
    .await;
    let shown = own.get_intake(full(&intake.id)).await.expect("shown").into_inner();
    assert!(shown.answers_json.contains("zanthorrhoea"));
    own.submit_intake(submit(&saved, "")).await.expect("the saved draft is submitted");
}

#[tokio::test]
async fn answers_moved_to_another_intake_do_not_open() {
    let suite = Suite::start().await;
    let form = suite.published(SCHEMA).await.id;
    let (patient, intake) = suite.asked(&form).await;
    let (other, foreign) = suite.asked(&form).await;
    for (patient, intake) in [(&patient, &intake), (&other, &foreign)] {
        let mut own = suite.intakes(Role::Patient, &patient.id);
        own.save_intake_draft(draft(intake, COMPLETE)).await.expect("saved");
    }
    sqlx::query(
        "update patients.intake set answers = (select answers from patients.intake where id::text = $1)
         where id::text = $2",
    )
    .bind(&foreign.id)
    .bind(&intake.id)
    .execute(&mut suite.servers.admin().await)
    .await
    .expect("moved");
    let status = suite.intakes(Role::Patient, &patient.id).get_intake(full(&intake.id)).await;
    refused(status, Code::Internal, "INTERNAL");
}

#[tokio::test]
async fn a_merged_patient_keeps_the_intake_under_both_ids() {
    let suite = Suite::start().await;
    let form = suite.published(SCHEMA).await.id;
    let (merged, intake) = suite.asked(&form).await;
    let survivor = suite.registered(someone("Ada", "King", "")).await;
    let request = MergePatientsRequest {
        surviving_patient_id: survivor.id.clone(),
        merged_patient_id: merged.id.clone(),
        surviving_etag: survivor.etag.clone(),
        merged_etag: merged.etag.clone(),
        reason: "same person, seen with passport".to_owned(),
        ..MergePatientsRequest::default()
    };
    suite.call_as(Role::Manager, "max").merge_patients(request).await.expect("merged");
    let by_visit = by_appointment(&intake.appointment_id);
    for id in [&survivor.id, &merged.id] {
        let shown = suite.intakes(Role::Patient, id).get_intake(by_visit.clone()).await.expect("shown");
        assert_eq!(shown.into_inner().patient_id, survivor.id);
    }
    let foreign = suite.intakes(Role::Patient, &nobody()).get_intake(by_visit).await;
    refused(foreign, Code::NotFound, "INTAKE_NOT_FOUND");
    let done = suite.intakes(Role::Patient, &survivor.id).submit_intake(submit(&intake, COMPLETE)).await;
    assert_eq!(done.expect("submitted").into_inner().state(), IntakeState::Submitted);
}

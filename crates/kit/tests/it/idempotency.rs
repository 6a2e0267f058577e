//! A request id is answered once: repeats get the first result, other requests under the same id are refused.

use futures::future::join_all;
use kit::auth::Caller;
use kit::db::Db;
use kit::idempotency::{self, Attempt};
use kit::ids::{PatientId, RequestId};
use kit::status::Error;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{GetPatientRequest, Patient};
use testkit::Servers;
use tonic::Code;

use crate::{TELLER, a_session, all_effects, schema};

fn caller(subject: &str) -> Caller {
    Caller { subject: subject.to_owned(), roles: vec![Role::FrontDesk] }
}

fn body(text: &str) -> GetPatientRequest {
    GetPatientRequest { patient_id: text.to_owned(), ..Default::default() }
}

/// Does the work of one request: an effect, and an answer with an id of its own.
async fn request(
    db: &Db,
    caller: &Caller,
    id: RequestId,
    body: &GetPatientRequest,
) -> Result<Patient, Error> {
    match idempotency::begin(db, caller, "Test", Some(id), body).await? {
        Attempt::Replayed(answer) => Ok(answer),
        Attempt::Fresh(mut fresh) => {
            let patient = PatientId::new();
            sqlx::query("insert into effect (of) values ($1)").bind(patient).execute(&mut *fresh.tx).await?;
            let answer = Patient { id: patient.to_string(), ..Default::default() };
            fresh.finish(&answer).await?;
            Ok(answer)
        }
    }
}

#[tokio::test]
async fn repeats_of_a_request_get_its_first_result_also_when_they_race() {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    let (desk, id, body) = (caller("desk"), RequestId::new(), body("a"));
    let answers = join_all((0..8).map(|_| {
        let (db, desk, body) = (db.clone(), desk.clone(), body.clone());
        tokio::spawn(async move { request(&db, &desk, id, &body).await.unwrap() })
    }));
    let answers: Vec<Patient> = answers.await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(request(&db, &desk, id, &body).await.unwrap(), answers[0]);
    assert_eq!(all_effects(&db).await, Some(1));
}

#[tokio::test]
async fn another_request_under_a_used_id_is_refused() {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    let (desk, id, first) = (caller("desk"), RequestId::new(), body("a"));
    request(&db, &desk, id, &first).await.unwrap();
    let other_body = request(&db, &desk, id, &body("b")).await.unwrap_err();
    let other_method = idempotency::begin::<_, Patient>(&db, &desk, "Other", Some(id), &first);
    for error in [other_body, other_method.await.unwrap_err()] {
        let status = error.into_status("patients.clinic");
        assert_eq!(status.code(), Code::AlreadyExists);
        assert_eq!(kit::status::reason(&status), "REQUEST_ID_REUSED");
    }
    assert_eq!(all_effects(&db).await, Some(1));
}

#[tokio::test]
async fn a_failed_attempt_leaves_the_id_free_for_whoever_waits() {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    let (desk, id, body) = (caller("desk"), RequestId::new(), body("a"));
    let first = idempotency::begin::<_, Patient>(&db, &desk, "Test", Some(id), &body).await.unwrap();
    let Attempt::Fresh(failing) = first else { panic!("the id is new") };
    let waiting = tokio::spawn({
        let (db, desk, body) = (db.clone(), desk.clone(), body.clone());
        async move { request(&db, &desk, id, &body).await }
    });
    a_session(&servers, "query like 'insert into request%' and wait_event_type = 'Lock'").await;
    failing.tx.rollback().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(all_effects(&db).await, Some(1));
}

#[tokio::test]
async fn two_callers_may_use_the_same_id() {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    let id = RequestId::new();
    let ana = request(&db, &caller("ana"), id, &body("a")).await.unwrap();
    let ben = request(&db, &caller("ben"), id, &body("a")).await.unwrap();
    assert_ne!(ana.id, ben.id);
}

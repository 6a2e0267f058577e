//! Two records of one person become one.

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    AccessAction, ListAccessLogRequest, MergePatientsRequest, Patient, PatientChange, PatientChanged,
    PatientView, SearchPatientsRequest, SetSmsConsentRequest, SmsConsentSource, SmsConsentState,
    UpdatePatientRequest,
};
use tonic::Code;

use crate::{Client, Suite, bad_fields, get, refused, someone};

const REASON: &str = "same person, seen with passport";

fn manager(suite: &Suite) -> Client {
    suite.call_as(Role::Manager, "max")
}

fn merging(survivor: &Patient, merged: &Patient) -> MergePatientsRequest {
    MergePatientsRequest {
        surviving_patient_id: survivor.id.clone(),
        merged_patient_id: merged.id.clone(),
        surviving_etag: survivor.etag.clone(),
        merged_etag: merged.etag.clone(),
        reason: REASON.to_owned(),
        ..Default::default()
    }
}

async fn history(suite: &Suite, id: &str) -> Patient {
    let mut request = get(id);
    request.view = PatientView::History.into();
    suite.desk().get_patient(request).await.expect("shown").into_inner()
}

async fn found(suite: &Suite, request: SearchPatientsRequest) -> Vec<String> {
    let found = suite.desk().search_patients(request).await.expect("found").into_inner().matches;
    found.into_iter().map(|m| m.patient.expect("shown").id).collect()
}

#[tokio::test]
async fn the_survivor_takes_over_what_it_lacks_and_both_ids_lead_to_it() {
    let suite = Suite::start().await;
    let survivor = suite
        .registered(Patient { language: String::new(), mrn: "S-1".to_owned(), ..someone("Ada", "King", "") })
        .await;
    let maiden = Patient {
        mrn: "D-1".to_owned(),
        email: "ada@example.org".to_owned(),
        ..someone("Ada", "Lovelace", "202-555-0123")
    };
    let merged = suite.registered(maiden).await;
    let joined =
        manager(&suite).merge_patients(merging(&survivor, &merged)).await.expect("merged").into_inner();
    assert_eq!((joined.id.as_str(), joined.mrn.as_str()), (survivor.id.as_str(), "S-1"));
    assert_eq!(
        (joined.phone.as_str(), joined.email.as_str(), joined.language.as_str(), joined.family_name.as_str()),
        ("+12025550123", "ada@example.org", "es-MX", "King")
    );

    let through = history(&suite, &merged.id).await;
    assert_eq!(through.id, survivor.id);
    let told = &through.merges[0];
    assert_eq!((told.merged_patient_id.as_str(), told.merged_mrn.as_str()), (merged.id.as_str(), "D-1"));
    assert_eq!((told.reason.as_str(), told.merged_by.as_str()), (REASON, "max"));
    let mut as_merged = get(&merged.id);
    as_merged.show_merged = true;
    let old = suite.desk().get_patient(as_merged).await.expect("as it was").into_inner();
    assert_eq!((old.merged_into_id.as_str(), old.family_name.as_str()), (survivor.id.as_str(), "Lovelace"));

    let by_name = SearchPatientsRequest { query: "ada lovelace".to_owned(), ..Default::default() };
    let by_phone = SearchPatientsRequest { phone: "202-555-0123".to_owned(), ..Default::default() };
    let by_mrn = SearchPatientsRequest { mrn: "d-1".to_owned(), ..Default::default() };
    for request in [by_name, by_phone, by_mrn] {
        assert_eq!(found(&suite, request).await, [survivor.id.as_str()]);
    }

    let events: Vec<PatientChanged> = testkit::collect(&suite.servers.broker().await, "patients", 4).await;
    let last: Vec<_> = events[2..].iter().map(|e| (e.patient_id.as_str(), e.version, e.change())).collect();
    let expected =
        [(survivor.id.as_str(), 2, PatientChange::Updated), (merged.id.as_str(), 2, PatientChange::Merged)];
    assert_eq!(last, expected);
    assert_eq!(events[2].changed_fields, ["phone", "email", "language"]);
    assert_eq!(events[3].merged_into_id, survivor.id);
}

#[tokio::test]
async fn a_patient_reaches_its_record_by_either_id_and_sees_both_logs() {
    let suite = Suite::start().await;
    let survivor = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let merged = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let other = suite.registered(someone("Eve", "King", "")).await;
    manager(&suite).merge_patients(merging(&survivor, &merged)).await.expect("merged");
    for (own, asked) in [(&survivor, &merged), (&merged, &survivor), (&merged, &merged)] {
        let read = suite.patient(&own.id).get_patient(get(&asked.id)).await.expect("its own").into_inner();
        assert_eq!(read.id, survivor.id);
        refused(
            suite.patient(&own.id).get_patient(get(&other.id)).await,
            Code::NotFound,
            "PATIENT_NOT_FOUND",
        );
    }
    let request = ListAccessLogRequest { patient_id: survivor.id.clone(), ..Default::default() };
    let log = suite.patient(&merged.id).list_access_log(request).await.expect("its log").into_inner().entries;
    let merges: Vec<_> = log.iter().filter(|e| e.action() == AccessAction::Merge).collect();
    assert_eq!(merges.len(), 2);
    assert!(merges.iter().all(|e| e.break_glass_reason == REASON && e.actor == "max"));
    assert_eq!(log.iter().filter(|e| e.action() == AccessAction::Create).count(), 2);
}

#[tokio::test]
async fn chains_and_circles_are_refused_and_a_survivor_may_be_merged_with_all_of_its_own() {
    let suite = Suite::start().await;
    let mut people = vec![];
    for name in ["One", "Two", "Three"] {
        people.push(suite.registered(someone("Ada", name, "")).await);
    }
    let [one, two, three] = people.try_into().expect("three");
    let mut manager = manager(&suite);
    let same = manager.merge_patients(merging(&one, &one)).await;
    assert_eq!(bad_fields(&refused(same, Code::InvalidArgument, "INVALID_FIELD")), ["merged_patient_id"]);
    let stale = MergePatientsRequest { merged_etag: "7".to_owned(), ..merging(&one, &two) };
    refused(manager.merge_patients(stale).await, Code::Aborted, "ETAG_MISMATCH");
    refused(suite.desk().merge_patients(merging(&one, &two)).await, Code::PermissionDenied, "ROLE_REQUIRED");

    let survivor = manager.merge_patients(merging(&two, &one)).await.expect("one into two").into_inner();
    refused(manager.merge_patients(merging(&one, &survivor)).await, Code::FailedPrecondition, "WRONG_STATE");
    refused(manager.merge_patients(merging(&one, &three)).await, Code::FailedPrecondition, "WRONG_STATE");
    refused(manager.merge_patients(merging(&three, &one)).await, Code::FailedPrecondition, "WRONG_STATE");
    let fields =
        Patient { id: one.id.clone(), etag: "2".to_owned(), given_name: "Eve".to_owned(), ..one.clone() };
    let change = UpdatePatientRequest { patient: Some(fields), ..Default::default() };
    refused(suite.desk().update_patient(change).await, Code::FailedPrecondition, "WRONG_STATE");

    manager.merge_patients(merging(&three, &survivor)).await.expect("two into three");
    let last = history(&suite, &one.id).await;
    let merged: Vec<_> = last.merges.iter().map(|m| m.merged_patient_id.as_str()).collect();
    assert_eq!((last.id.as_str(), merged), (three.id.as_str(), vec![one.id.as_str(), two.id.as_str()]));
    let by_name = SearchPatientsRequest { query: "ada one".to_owned(), ..Default::default() };
    assert_eq!(found(&suite, by_name).await, [three.id]);
}

#[tokio::test]
async fn racing_merges_have_one_winner() {
    let suite = Suite::start().await;
    let mut people = vec![];
    for name in ["One", "Two", "Three", "Four"] {
        people.push(suite.registered(someone("Ada", name, "")).await);
    }
    let pairs = people.iter().flat_map(|a| people.iter().map(move |b| (a, b))).filter(|(a, b)| a.id != b.id);
    let calls = pairs.map(|(survivor, merged)| {
        let (mut manager, request) = (manager(&suite), merging(survivor, merged));
        tokio::spawn(async move { manager.merge_patients(request).await })
    });
    let mut won = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.expect("no panic") {
            Ok(_) => won += 1,
            Err(status) => {
                assert!([Code::Aborted, Code::FailedPrecondition].contains(&status.code()), "{status}")
            }
        }
    }
    // Each merge changes both etags, so of four patients two pairs at most were still as they had been seen.
    assert!((1..=2).contains(&won), "{won}");
    let mut merges = 0;
    for person in &people {
        let shown = history(&suite, &person.id).await;
        merges += if shown.id == person.id { shown.merges.len() } else { 0 };
    }
    assert_eq!(merges, won);
}

#[tokio::test]
async fn a_stop_to_a_shared_number_outlives_the_merge() {
    let suite = Suite::start().await;
    let survivor = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let merged = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let decision = |patient: &Patient, state: SmsConsentState| SetSmsConsentRequest {
        patient_id: patient.id.clone(),
        state: state.into(),
        source: SmsConsentSource::FrontDesk.into(),
        wording: "yes, or no".to_owned(),
        ..Default::default()
    };
    let mut desk = suite.desk();
    desk.set_sms_consent(decision(&survivor, SmsConsentState::Granted)).await.expect("granted");
    desk.set_sms_consent(decision(&merged, SmsConsentState::Revoked)).await.expect("revoked");
    let again = |patient: &Patient| Patient { etag: "2".to_owned(), ..patient.clone() };
    let joined = manager(&suite).merge_patients(merging(&again(&survivor), &again(&merged))).await;
    let consent = joined.expect("merged").into_inner().sms_consent.expect("in force");
    assert_eq!(consent.state(), SmsConsentState::Revoked);
    assert_eq!(history(&suite, &survivor.id).await.sms_consent_history.len(), 2);
    refused(
        desk.set_sms_consent(decision(&merged, SmsConsentState::Granted)).await,
        Code::FailedPrecondition,
        "WRONG_STATE",
    );
}

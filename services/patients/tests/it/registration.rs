//! Registering, reading and correcting patients.

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    Patient, PatientChange, PatientChanged, PatientView, RegisterPatientRequest, SmsConsentState,
    UpdatePatientRequest,
};
use proto::google::r#type::Date;
use tonic::Code;

use crate::{Suite, bad_fields, get, nobody, refused, someone};

#[tokio::test]
async fn a_registered_patient_sees_itself_and_no_one_else() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("María", "Núñez", "(202) 555-0123")).await;
    assert_eq!((patient.phone.as_str(), patient.mrn.as_str()), ("+12025550123", "P00000001"));
    assert_eq!(patient.sms_consent.as_ref().map(|c| c.state()), Some(SmsConsentState::NotAsked));

    let own = suite.patient(&patient.id).get_patient(get(&patient.id)).await.expect("its own").into_inner();
    assert_eq!(own, patient);
    let foreign = suite.patient(&nobody()).get_patient(get(&patient.id)).await;
    refused(foreign, Code::NotFound, "PATIENT_NOT_FOUND");
    let missing = suite.desk().get_patient(get(&nobody())).await;
    refused(missing, Code::NotFound, "PATIENT_NOT_FOUND");

    let told: Vec<PatientChanged> = testkit::collect(&suite.servers.broker().await, "patients", 1).await;
    assert_eq!((told[0].patient_id.as_str(), told[0].version), (patient.id.as_str(), 1));
    assert_eq!(told[0].change(), PatientChange::Registered);
    assert!(told[0].has_phone && !told[0].has_email);
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let suite = Suite::start().await;
    let patient = Patient {
        mrn: "lower case".to_owned(),
        given_name: "  ".to_owned(),
        family_name: "x".repeat(101),
        birth_date: Some(Date { year: 2999, month: 1, day: 1 }),
        phone: "12".to_owned(),
        email: "nobody".to_owned(),
        language: "english".to_owned(),
        time_zone: "Mars/Olympus".to_owned(),
        ..Default::default()
    };
    let request = RegisterPatientRequest {
        request_id: "1".to_owned(),
        patient_id: "2".to_owned(),
        patient: Some(patient),
        ..Default::default()
    };
    let status =
        refused(suite.desk().register_patient(request).await, Code::InvalidArgument, "INVALID_FIELD");
    let expected = [
        "request_id",
        "patient_id",
        "patient.mrn",
        "patient.given_name",
        "patient.family_name",
        "patient.birth_date",
        "patient.phone",
        "patient.email",
        "patient.language",
        "patient.time_zone",
    ];
    assert_eq!(bad_fields(&status), expected);
    let empty = suite.desk().register_patient(RegisterPatientRequest::default()).await;
    let status = refused(empty, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_fields(&status), ["patient", "patient.given_name", "patient.birth_date"]);
}

#[tokio::test]
async fn an_id_or_mrn_in_use_is_refused() {
    let suite = Suite::start().await;
    let first = suite.registered(Patient { mrn: "P00000002".to_owned(), ..someone("Ada", "King", "") }).await;
    let again = |mrn: &str, patient_id: &str| RegisterPatientRequest {
        patient_id: patient_id.to_owned(),
        patient: Some(Patient { mrn: mrn.to_owned(), ..someone("Bob", "Ross", "") }),
        ..Default::default()
    };
    let mut desk = suite.desk();
    refused(desk.register_patient(again("P00000002", "")).await, Code::AlreadyExists, "MRN_EXISTS");
    refused(desk.register_patient(again("X-1", &first.id)).await, Code::AlreadyExists, "PATIENT_EXISTS");
    let assigned = [
        suite.registered(someone("Bob", "Ross", "")).await.mrn,
        suite.registered(someone("Bob", "Ross", "")).await.mrn,
    ];
    assert!(!assigned.contains(&first.mrn) && assigned[0] != assigned[1], "{assigned:?}");
}

#[tokio::test]
async fn a_repeated_request_registers_one_patient() {
    let suite = Suite::start().await;
    let request = RegisterPatientRequest {
        request_id: nobody(),
        patient: Some(someone("Ada", "King", "")),
        ..Default::default()
    };
    let first = suite.desk().register_patient(request.clone()).await.expect("registered").into_inner();
    let second = suite.desk().register_patient(request.clone()).await.expect("answered again").into_inner();
    assert_eq!(first, second);
    let other = RegisterPatientRequest { patient: Some(someone("Eve", "King", "")), ..request };
    refused(suite.desk().register_patient(other).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn likely_duplicates_are_named_best_first_and_stop_nothing() {
    let suite = Suite::start().await;
    let same_phone = suite.registered(someone("Carl", "King", "202-555-0123")).await;
    let same_name = suite.registered(someone("ADÁ", "King", "")).await;
    suite.registered(someone("Someone", "Else", "202-555-0199")).await;
    let request = RegisterPatientRequest {
        patient: Some(someone("Ada", "King", "+12025550123")),
        ..Default::default()
    };
    let trial = RegisterPatientRequest { validate_only: true, ..request.clone() };
    let trial = suite.desk().register_patient(trial).await.expect("checked").into_inner();
    let kept = suite.desk().register_patient(request.clone()).await.expect("registered").into_inner();
    for response in [&trial, &kept] {
        let found: Vec<_> =
            response.likely_duplicates.iter().map(|m| m.patient.clone().expect("shown").id).collect();
        assert_eq!(found, [same_name.id.as_str(), same_phone.id.as_str()]);
    }
    let tried = trial.patient.expect("as checked");
    assert_eq!((tried.id.as_str(), tried.mrn.as_str(), tried.given_name.as_str()), ("", "", "Ada"));

    let mut manager = suite.call_as(Role::Manager, "max");
    let seen = manager.register_patient(request).await.expect("registered").into_inner().likely_duplicates;
    let seen: Vec<_> = seen.into_iter().map(|m| m.patient.expect("a reference")).collect();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|p| !p.id.is_empty() && p.given_name.is_empty() && p.phone.is_empty()));
}

#[tokio::test]
async fn a_mistyped_name_or_a_shared_address_hints_at_a_duplicate() {
    let suite = Suite::start().await;
    let first =
        Patient { email: "kj@example.org".to_owned(), ..someone("Katherine", "Johnson", "202-555-0123") };
    suite.registered(first).await;
    let other_day = Some(Date { year: 1985, month: 7, day: 1 });
    let cases = [
        (someone("Kathrine", "Jonson", ""), vec!["name", "birth_date"]),
        (someone("Johnson", "Katherine", ""), vec!["name", "birth_date"]),
        (
            Patient { birth_date: other_day, ..someone("Katherine", "Johnson", "202-555-0123") },
            vec!["name", "phone"],
        ),
        (
            Patient { email: "KJ@example.org".to_owned(), birth_date: other_day, ..someone("Bo", "Li", "") },
            vec!["email"],
        ),
        (Patient { birth_date: other_day, ..someone("Katherine", "Johnson", "") }, vec![]),
        (someone("Bo", "Li", ""), vec![]),
    ];
    for (patient, fields) in cases {
        let request =
            RegisterPatientRequest { patient: Some(patient), validate_only: true, ..Default::default() };
        let found = suite.desk().register_patient(request).await.expect("checked").into_inner();
        let matched: Vec<_> = found.likely_duplicates.iter().flat_map(|m| m.matched_fields.clone()).collect();
        assert_eq!(matched, fields);
    }
}

#[tokio::test]
async fn a_patient_corrects_its_contact_and_staff_the_rest() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let update = |fields: Patient| UpdatePatientRequest {
        patient: Some(Patient { id: patient.id.clone(), etag: patient.etag.clone(), ..fields }),
        ..Default::default()
    };
    let mut own = suite.patient(&patient.id);
    let name = update(Patient { given_name: "Eve".to_owned(), ..Default::default() });
    refused(own.update_patient(name.clone()).await, Code::PermissionDenied, "ROLE_REQUIRED");
    let phone = update(Patient { phone: "202-555-0177".to_owned(), ..Default::default() });
    let changed = own.update_patient(phone).await.expect("its own phone").into_inner();
    assert_eq!(
        changed,
        Patient {
            phone: "+12025550177".to_owned(),
            etag: changed.etag.clone(),
            update_time: changed.update_time,
            ..patient.clone()
        }
    );
    refused(suite.desk().update_patient(name.clone()).await, Code::Aborted, "ETAG_MISMATCH");
    let mut name = name;
    name.patient.as_mut().expect("set").etag = changed.etag;
    let renamed = suite.desk().update_patient(name).await.expect("by staff").into_inner();
    assert_eq!((renamed.given_name.as_str(), renamed.family_name.as_str()), ("Eve", "King"));

    let mut clear = update(Patient::default());
    clear.update_mask =
        Some(prost_types::FieldMask { paths: vec!["given_name".into(), "phone".into(), "id".into()] });
    let status = refused(suite.desk().update_patient(clear).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_fields(&status), ["update_mask.paths[2]", "patient.given_name"]);
}

#[tokio::test]
async fn each_role_sees_what_its_work_needs() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let mut notify = suite.call_as(Role::Service, "notify");
    let contact = notify.get_patient(get(&patient.id)).await.expect("contact").into_inner();
    assert_eq!((contact.phone.as_str(), contact.given_name.as_str()), ("+12025550123", ""));
    let mut full = get(&patient.id);
    full.view = PatientView::Full.into();
    refused(notify.get_patient(full).await, Code::PermissionDenied, "VIEW_NOT_ALLOWED");

    let mut manager = suite.call_as(Role::Manager, "max");
    let glass = manager.get_patient(get(&patient.id)).await;
    refused(glass, Code::PermissionDenied, "BREAK_GLASS_REQUIRED");
    let mut reason = get(&patient.id);
    reason.break_glass_reason = "complaint about a lost record".to_owned();
    assert_eq!(manager.get_patient(reason).await.expect("with a reason").into_inner(), patient);
}

//! One row for each look, chained, and out of reach of an ordinary hand.

use patients::store::access_log;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    AccessAction, AccessLogEntry, AccessPurpose, GetPatientRequest, ListAccessLogRequest, Patient,
    RegisterPatientRequest, SearchPatientsRequest, SetSmsConsentRequest, SmsConsentSource, SmsConsentState,
    UpdatePatientRequest,
};
use sqlx::{Connection as _, PgConnection};
use tonic::Code;

use crate::{Suite, bad_fields, get, nobody, refused, someone};

fn log_of(patient_id: &str) -> ListAccessLogRequest {
    ListAccessLogRequest { patient_id: patient_id.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn every_look_leaves_one_row_and_the_rows_are_chained() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    suite.patient(&patient.id).get_patient(get(&patient.id)).await.expect("read");
    suite.patient(&nobody()).get_patient(get(&patient.id)).await.expect_err("nothing shown, nothing logged");
    suite.call_as(Role::Service, "notify").get_patient(get(&patient.id)).await.expect("read");
    let search = SearchPatientsRequest { query: "ada".to_owned(), ..Default::default() };
    suite.call_as(Role::Provider, "dr-lee").search_patients(search).await.expect("found");
    let consent = SetSmsConsentRequest {
        patient_id: patient.id.clone(),
        state: SmsConsentState::Granted.into(),
        source: SmsConsentSource::FrontDesk.into(),
        wording: "yes".to_owned(),
        ..Default::default()
    };
    let consent = SetSmsConsentRequest { request_id: nobody(), ..consent };
    suite.desk().set_sms_consent(consent.clone()).await.expect("granted");
    suite.desk().set_sms_consent(consent).await.expect("the same answer again");

    let mut own = suite.patient(&patient.id);
    let mut rows = own.list_access_log(log_of(&patient.id)).await.expect("its log").into_inner().entries;
    rows.reverse();
    let told: Vec<_> =
        rows.iter().map(|e| (e.actor.as_str(), e.actor_role(), e.action(), e.purpose())).collect();
    let expected = [
        ("ana", Role::FrontDesk, AccessAction::Create, AccessPurpose::Scheduling),
        (&patient.id, Role::Patient, AccessAction::Read, AccessPurpose::PatientRequest),
        ("notify", Role::Service, AccessAction::Read, AccessPurpose::Operations),
        ("dr-lee", Role::Provider, AccessAction::Read, AccessPurpose::Care),
        ("ana", Role::FrontDesk, AccessAction::Update, AccessPurpose::Scheduling),
        ("ana", Role::FrontDesk, AccessAction::Read, AccessPurpose::Scheduling),
    ];
    assert_eq!(told, expected);
    assert!(rows[4..].iter().all(|row| row.fields == ["sms_consent"]));
    assert_eq!(rows[2].fields, ["phone", "email", "language", "time_zone", "sms_consent"]);
    assert_eq!(rows[2].method, "clinic.patients.v1.PatientService/GetPatient");

    assert_eq!(rows[0].previous_hash, [0; 32]);
    for (before, after) in rows.iter().zip(&rows[1..]) {
        assert_eq!((after.sequence, &after.previous_hash), (before.sequence + 1, &before.hash));
    }
    let again = own.list_access_log(log_of(&patient.id)).await.expect("its log").into_inner().entries;
    assert_eq!(again[0].fields, ["access_log"], "reading the log is logged too");
}

#[tokio::test]
async fn the_log_is_for_the_patient_and_for_admins() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let foreign = suite.patient(&nobody()).list_access_log(log_of(&patient.id)).await;
    refused(foreign, Code::NotFound, "PATIENT_NOT_FOUND");
    let all = suite.patient(&patient.id).list_access_log(log_of("")).await;
    refused(all, Code::InvalidArgument, "INVALID_FIELD");
    refused(suite.desk().list_access_log(log_of(&patient.id)).await, Code::PermissionDenied, "ROLE_REQUIRED");

    for family_name in ["One", "Two", "Three"] {
        suite.registered(someone("Ada", family_name, "")).await;
    }
    let mut admin = suite.call_as(Role::Admin, "officer");
    let mut request = ListAccessLogRequest { actor: "ana".to_owned(), page_size: 3, ..Default::default() };
    let first = admin.list_access_log(request.clone()).await.expect("a page").into_inner();
    request.page_token = first.next_page_token;
    let second = admin.list_access_log(request).await.expect("a page").into_inner();
    assert_eq!((first.entries.len(), second.entries.len(), second.next_page_token.as_str()), (3, 1, ""));
    assert_eq!(second.entries[0].patient_id, patient.id);
}

#[tokio::test]
async fn broken_glass_needs_a_reason_and_is_flagged_for_the_patient_and_the_privacy_officer() {
    const REASON: &str = "complaint about a lost record";
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    suite.registered(someone("Bea", "Lovelace", "")).await;
    let mut manager = suite.call_as(Role::Manager, "max");
    let with = |reason: &str| {
        let read = get(&patient.id);
        let find = SearchPatientsRequest { query: "ada".to_owned(), ..Default::default() };
        let fields = Patient {
            id: patient.id.clone(),
            etag: "1".to_owned(),
            email: "a@b.org".to_owned(),
            ..Default::default()
        };
        let change = UpdatePatientRequest { patient: Some(fields), ..Default::default() };
        let reason = reason.to_owned();
        (
            GetPatientRequest { break_glass_reason: reason.clone(), ..read },
            SearchPatientsRequest { break_glass_reason: reason.clone(), ..find },
            UpdatePatientRequest { break_glass_reason: reason, ..change },
        )
    };
    let (read, find, change) = with("");
    let glass = (Code::PermissionDenied, "BREAK_GLASS_REQUIRED");
    refused(manager.get_patient(read).await, glass.0, glass.1);
    refused(manager.search_patients(find).await, glass.0, glass.1);
    refused(manager.update_patient(change).await, glass.0, glass.1);
    let (read, find, change) = with("because");
    let too_short = [
        refused(manager.get_patient(read).await, Code::InvalidArgument, "INVALID_FIELD"),
        refused(manager.search_patients(find).await, Code::InvalidArgument, "INVALID_FIELD"),
        refused(manager.update_patient(change).await, Code::InvalidArgument, "INVALID_FIELD"),
    ];
    assert!(too_short.iter().all(|status| bad_fields(status) == ["break_glass_reason"]));

    let (read, find, change) = with(REASON);
    assert_eq!(manager.get_patient(read.clone()).await.expect("with a reason").into_inner(), patient);
    manager.search_patients(find).await.expect("with a reason");
    manager.update_patient(change).await.expect("with a reason");
    // Whoever needs no reason and gives one is flagged, too.
    suite.desk().get_patient(read).await.expect("read");
    suite.desk().get_patient(get(&patient.id)).await.expect("read");

    let flagged = |all: Vec<AccessLogEntry>| -> Vec<(String, AccessAction)> {
        assert!(all.iter().all(|e| e.break_glass_reason == REASON && e.patient_id == patient.id));
        all.into_iter().rev().map(|e| (e.actor.clone(), e.action())).collect()
    };
    let expected = [
        ("max", AccessAction::Read),
        ("max", AccessAction::Read),
        ("max", AccessAction::Update),
        ("ana", AccessAction::Read),
    ]
    .map(|(actor, action)| (actor.to_owned(), action));
    let everyone = ListAccessLogRequest { break_glass_only: true, ..log_of("") };
    let mut officer = suite.call_as(Role::Admin, "officer");
    let listed = officer.list_access_log(everyone.clone()).await.expect("listed").into_inner().entries;
    assert_eq!(flagged(listed), expected);
    let own = ListAccessLogRequest { patient_id: patient.id.clone(), ..everyone };
    let listed = suite.patient(&patient.id).list_access_log(own).await.expect("listed").into_inner().entries;
    assert_eq!(flagged(listed), expected);
}

#[tokio::test]
async fn the_service_itself_cannot_change_a_row() {
    let suite = Suite::start().await;
    suite.registered(someone("Ada", "King", "")).await;
    let url = suite.servers.database_url(patients::NAME);
    let mut service = PgConnection::connect(&url).await.expect("the service's role");
    // Without the privilege, and again after the owner has granted it back to itself.
    for code in ["42501", "P0001"] {
        for sql in [
            "update patients.access_log set actor = 'x'",
            "delete from patients.access_log",
            "truncate patients.access_log",
        ] {
            let error = sqlx::query(sql).execute(&mut service).await.expect_err(sql);
            let found = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
            assert_eq!(found, code, "{sql}: {error}");
        }
        let grant = "grant update, delete, truncate on patients.access_log to current_user";
        sqlx::query(grant).execute(&mut service).await.expect("an owner may");
    }
}

#[tokio::test]
async fn simultaneous_looks_leave_a_chain_without_gaps() {
    const LOOKS: usize = 24;
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "")).await;
    let calls = (0..LOOKS).map(|_| {
        let mut desk = suite.desk();
        let id = patient.id.clone();
        tokio::spawn(async move { desk.get_patient(get(&id)).await.expect("read") })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic");
    }
    let mut own = suite.patient(&patient.id);
    let rows = own.list_access_log(log_of(&patient.id)).await.expect("its log").into_inner().entries;
    let mut links: Vec<_> = rows.iter().map(|e| (e.sequence, &e.previous_hash, &e.hash)).collect();
    links.sort_unstable();
    assert_eq!(links.iter().map(|l| l.0).collect::<Vec<_>>(), (1..=LOOKS as i64 + 1).collect::<Vec<_>>());
    assert!(links.windows(2).all(|pair| pair[0].2 == pair[1].1));
}

/// What a check of the log finds after a superuser ran `sql` on it.
async fn found_after(suite: &Suite, sql: &str) -> Option<String> {
    let mut admin = suite.servers.admin().await;
    let guard = |on: &str| format!("alter table patients.access_log {on} trigger access_log_append_only");
    for sql in [guard("disable"), sql.to_owned(), guard("enable")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut admin).await.expect("a superuser may");
    }
    let mut tx = admin.begin().await.expect("a transaction");
    let verified = access_log::verify(&mut tx).await.expect("checked");
    verified.broken.map(|broken| broken.to_string())
}

#[tokio::test]
async fn a_check_names_the_first_row_that_was_edited_deleted_or_moved() {
    let suite = Suite::start().await;
    let patient_id = "00000000-0000-4000-8000-000000000007".to_owned();
    let ada = Some(someone("Ada", "King", ""));
    let request =
        RegisterPatientRequest { patient_id: patient_id.clone(), patient: ada, ..Default::default() };
    suite.desk().register_patient(request).await.expect("registered");
    for _ in 0..5 {
        suite.desk().get_patient(get(&patient_id)).await.expect("read");
    }
    let said = |row: i64, what: &str| Some(format!("row {row} of chain 7 {what}"));
    assert_eq!(found_after(&suite, "select 1").await, None);

    let edit = "update patients.access_log set actor = 'someone' where chain = 7 and sequence = 3";
    assert_eq!(found_after(&suite, edit).await, said(3, "is not as it was written"));
    let mend = "update patients.access_log set actor = 'ana' where chain = 7 and sequence = 3";
    assert_eq!(found_after(&suite, mend).await, None);

    let swap = "update patients.access_log set sequence = -sequence where chain = 7 and sequence in (2, 3);
                update patients.access_log set sequence = 5 + sequence where chain = 7 and sequence < 0";
    assert_eq!(found_after(&suite, swap).await, said(2, "is not as it was written"));
    let back = "update patients.access_log set sequence = -sequence where chain = 7 and sequence in (2, 3);
                update patients.access_log set sequence = 5 + sequence where chain = 7 and sequence < 0";
    assert_eq!(found_after(&suite, back).await, None);

    let last = "delete from patients.access_log where chain = 7 and sequence = 6";
    assert_eq!(found_after(&suite, last).await, said(6, "is missing"));
    let inner = "delete from patients.access_log where chain = 7 and sequence = 2";
    assert_eq!(found_after(&suite, inner).await, said(2, "is missing"));
    let all = "delete from patients.access_log where chain = 7";
    assert_eq!(found_after(&suite, all).await, said(1, "is missing"));
    let end = "update patients.access_chain set sequence = 0 where chain = 7";
    assert_eq!(found_after(&suite, end).await, said(0, "is not the end that was noted"));
}

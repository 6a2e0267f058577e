//! Copying everybody out.

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    AccessAction, AccessPurpose, ExportPatientsRequest, ListAccessLogRequest, MergePatientsRequest,
};
use tonic::Code;

use crate::{Suite, bad_fields, refused, someone};

const REASON: &str = "copy for the auditor";

fn page(token: &str) -> ExportPatientsRequest {
    ExportPatientsRequest {
        page_size: 2,
        page_token: token.to_owned(),
        break_glass_reason: REASON.to_owned(),
    }
}

#[tokio::test]
async fn everybody_is_copied_once_and_each_copy_is_logged() {
    let suite = Suite::start().await;
    let mut registered = vec![];
    for name in ["Ada", "Bo", "Cleo", "Dee", "Edda", "Finn"] {
        registered.push(suite.registered(someone(name, "King", "")).await);
    }
    let (merged, survivor) = (registered.remove(5), &registered[0]);
    let request = MergePatientsRequest {
        surviving_patient_id: survivor.id.clone(),
        merged_patient_id: merged.id,
        surviving_etag: survivor.etag.clone(),
        merged_etag: merged.etag,
        reason: REASON.to_owned(),
        ..Default::default()
    };
    registered[0] =
        suite.call_as(Role::Manager, "max").merge_patients(request).await.expect("merged").into_inner();
    registered.sort_unstable_by_key(|patient| patient.id.clone());

    let (mut copied, mut token) = (vec![], String::new());
    loop {
        let mut admin = suite.call_as(Role::Admin, "root");
        let answer = admin.export_patients(page(&token)).await.expect("a page").into_inner();
        assert!(answer.patients.len() <= 2);
        copied.extend(answer.patients);
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    for patient in &mut registered {
        patient.merges.clear();
    }
    assert_eq!(copied, registered);

    let all = ListAccessLogRequest { actor: "root".to_owned(), ..Default::default() };
    let log = suite.call_as(Role::Admin, "officer").list_access_log(all).await.expect("its log").into_inner();
    assert_eq!(log.entries.len(), registered.len());
    for row in &log.entries {
        assert_eq!((row.action(), row.purpose()), (AccessAction::Export, AccessPurpose::Operations));
        assert_eq!(row.break_glass_reason, REASON);
        assert_eq!(row.method, "clinic.patients.v1.PatientService/ExportPatients");
    }
}

#[tokio::test]
async fn only_an_admin_with_a_reason_copies() {
    let suite = Suite::start().await;
    suite.registered(someone("Ada", "King", "")).await;
    for role in [Role::FrontDesk, Role::Provider, Role::Billing, Role::Manager, Role::Service, Role::Patient]
    {
        let answer = suite.call_as(role, "someone").export_patients(page("")).await;
        refused(answer, Code::PermissionDenied, "ROLE_REQUIRED");
    }
    let mut admin = suite.call_as(Role::Admin, "root");
    let silent = ExportPatientsRequest { break_glass_reason: String::new(), ..page("") };
    refused(admin.export_patients(silent).await, Code::PermissionDenied, "BREAK_GLASS_REQUIRED");
    let terse = ExportPatientsRequest { break_glass_reason: "because".to_owned(), ..page("not a token") };
    let status = refused(admin.export_patients(terse).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_fields(&status), ["break_glass_reason", "page_token"]);
}

//! What can be booked: who may change it, what is refused, what is told.

use kit::ids::{ClinicId, RequestId};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::catalog_changed::Resource;
use proto::clinic::scheduling::v1::{
    CatalogChanged, Clinic, CreateClinicRequest, CreateProviderRequest, CreateServiceTypeRequest,
    GetClinicRequest, ListClinicsRequest, OpeningHours, Provider, PutWeeklyTemplateRequest,
    RemoveExceptionRequest, ServiceType, UpdateClinicRequest, WeeklyTemplate,
};
use tonic::Code;

use super::{Suite, bad_fields, clinic, code_and_reason};

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_cannot_open_a_clinic_but_may_read_one() {
    let suite = Suite::start().await;
    let refused = suite.catalog_as(Role::Patient).create_clinic(clinic("Lakeside")).await.unwrap_err();
    assert_eq!(code_and_reason(&refused), (Code::PermissionDenied, "ROLE_REQUIRED".to_owned()));

    let made = suite.catalog().create_clinic(clinic("Lakeside")).await.unwrap().into_inner();
    let request = GetClinicRequest { clinic_id: made.id.clone() };
    assert_eq!(suite.catalog_as(Role::Patient).get_clinic(request).await.unwrap().into_inner(), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_is_named() {
    let suite = Suite::start().await;
    let bad = Clinic {
        time_zone: "Mars/Olympus".into(),
        opening_hours: vec![
            OpeningHours { day: 8, ..Default::default() },
            OpeningHours { day: 1, open: Some(kit::fields::time_of_day(541)), close: None },
            OpeningHours { day: 1, open: Some(kit::fields::time_of_day(600)), close: None },
        ],
        phone: "555-0100".into(),
        ..Default::default()
    };
    let request = CreateClinicRequest { request_id: "x".into(), clinic_id: "y".into(), clinic: Some(bad) };
    let status = suite.catalog().create_clinic(request).await.unwrap_err();
    assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    assert_eq!(
        bad_fields(&status),
        [
            "request_id",
            "clinic_id",
            "clinic.name",
            "clinic.time_zone",
            "clinic.opening_hours[0].day",
            "clinic.opening_hours[1].open",
            "clinic.opening_hours[2]",
            "clinic.phone",
        ]
    );

    let service = ServiceType { duration_minutes: 7, booking_horizon_days: 900, ..Default::default() };
    let request = CreateServiceTypeRequest { service_type: Some(service), ..Default::default() };
    let status = suite.catalog().create_service_type(request).await.unwrap_err();
    assert_eq!(
        bad_fields(&status),
        ["service_type.duration_minutes", "service_type.booking_horizon_days", "service_type.name"]
    );

    let template = WeeklyTemplate { rule: "RRULE:FREQ=SECONDLY".into(), ..Default::default() };
    let request = PutWeeklyTemplateRequest { weekly_template: Some(template), ..Default::default() };
    let status = suite.calendar().put_weekly_template(request).await.unwrap_err();
    assert_eq!(
        bad_fields(&status),
        [
            "weekly_template.provider_id",
            "weekly_template.clinic_id",
            "weekly_template.start_time",
            "weekly_template.end_time",
            "weekly_template.rule",
        ]
    );

    let list = ListClinicsRequest { page_size: -1, page_token: "?".into(), ..Default::default() };
    let status = suite.catalog().list_clinics(list).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["page_size", "page_token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_id_is_given_once_and_a_repeated_request_answers_the_first_result() {
    let suite = Suite::start().await;
    let id = ClinicId::new().to_string();
    let request = CreateClinicRequest {
        request_id: RequestId::new().to_string(),
        clinic_id: id.clone(),
        ..clinic("Lakeside")
    };
    let first = suite.catalog().create_clinic(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.id.as_str(), first.etag.as_str()), (id.as_str(), "1"));
    assert_eq!(suite.catalog().create_clinic(request.clone()).await.unwrap().into_inner(), first);

    let other = CreateClinicRequest { clinic_id: id.clone(), ..clinic("Hillside") };
    let taken = suite.catalog().create_clinic(other).await.unwrap_err();
    assert_eq!(code_and_reason(&taken), (Code::AlreadyExists, "CLINIC_EXISTS".to_owned()));

    let reused = CreateClinicRequest { request_id: request.request_id, ..clinic("Hillside") };
    let reused = suite.catalog().create_clinic(reused).await.unwrap_err();
    assert_eq!(code_and_reason(&reused), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names_and_is_told_with_the_next_version() {
    let suite = Suite::start().await;
    let made = suite.catalog().create_clinic(clinic("Lakeside")).await.unwrap().into_inner();
    let wish = Clinic {
        id: made.id.clone(),
        name: "Lakeview".into(),
        etag: made.etag.clone(),
        ..Default::default()
    };
    let request = UpdateClinicRequest { clinic: Some(wish), ..Default::default() };
    let changed = suite.catalog().update_clinic(request.clone()).await.unwrap().into_inner();
    assert_eq!(changed, Clinic { name: "Lakeview".into(), etag: "2".into(), ..made.clone() });

    let stale = suite.catalog().update_clinic(request).await.unwrap_err();
    assert_eq!(code_and_reason(&stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));

    let told: Vec<CatalogChanged> = testkit::collect(&suite.servers.broker().await, "scheduling", 2).await;
    let told: Vec<_> = told.into_iter().map(|e| (e.resource_id, e.version, e.resource)).collect();
    let expected = [(1, made.clone()), (2, changed)];
    assert_eq!(told, expected.map(|(version, c)| (made.id.clone(), version, Some(Resource::Clinic(c)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_named() {
    let suite = Suite::start().await;
    let missing = ClinicId::new().to_string();
    let status =
        suite.catalog().get_clinic(GetClinicRequest { clinic_id: missing.clone() }).await.unwrap_err();
    assert_eq!(code_and_reason(&status), (Code::NotFound, "CLINIC_NOT_FOUND".to_owned()));

    let provider = Provider {
        name: "Dr. Ada Osei".into(),
        service_type_ids: vec![missing.clone()],
        ..Default::default()
    };
    let request = CreateProviderRequest { provider: Some(provider), ..Default::default() };
    let status = suite.catalog().create_provider(request).await.unwrap_err();
    assert_eq!(code_and_reason(&status), (Code::NotFound, "SERVICE_TYPE_NOT_FOUND".to_owned()));

    let request = RemoveExceptionRequest { exception_id: missing, ..Default::default() };
    let status = suite.calendar().remove_exception(request).await.unwrap_err();
    assert_eq!(code_and_reason(&status), (Code::NotFound, "EXCEPTION_NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_by_name_and_leave_out_what_is_retired() {
    let suite = Suite::start().await;
    for name in ["C", "A", "D", "B"] {
        suite.catalog().create_clinic(clinic(name)).await.unwrap();
    }
    let mut request = ListClinicsRequest { page_size: 3, ..Default::default() };
    let first = suite.catalog().list_clinics(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token.clone();
    let second = suite.catalog().list_clinics(request).await.unwrap().into_inner();
    let names = |page: &[Clinic]| page.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&first.clinics), names(&second.clinics)),
        (vec!["A".into(), "B".into(), "C".into()], vec!["D".into()])
    );
    assert_eq!(second.next_page_token, "");

    let retired = Clinic { id: first.clinics[0].id.clone(), retired: true, ..Default::default() };
    let request = UpdateClinicRequest { clinic: Some(retired), ..Default::default() };
    suite.catalog().update_clinic(request).await.unwrap();
    let left = suite.catalog().list_clinics(ListClinicsRequest::default()).await.unwrap().into_inner();
    assert_eq!(names(&left.clinics), ["B", "C", "D"]);
}

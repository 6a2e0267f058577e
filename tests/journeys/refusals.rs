//! Who may not, and what cannot be: every refusal has the right code, and names what to mend.

use kit::client::Outbound;
use kit::status::reason;
use proto::clinic::appointments::v1::BookAppointmentRequest;
use proto::clinic::appointments::v1::{GetAppointmentRequest, JoinWaitlistRequest};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::{CreateClinicRequest, ListClinicsRequest};
use testkit::network::in_days;
use testkit::suite::Desk;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn bad_fields(status: &Status) -> Vec<String> {
    let detail = status.get_details_bad_request().expect("BadRequest");
    detail.field_violations.into_iter().map(|v| v.field).collect()
}

#[tokio::test]
async fn without_a_good_token_in_the_right_role_nothing_is_done() {
    let (suite, network) = super::start().await;
    let nobody = Desk::new(Outbound::anonymous(&suite.urls.gateway).unwrap());
    let refused = nobody.catalog().list_clinics(ListClinicsRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));

    let mut token = suite.servers.token(Role::Manager, "ana");
    token.pop();
    let forged = Desk::new(Outbound::bearing(&suite.urls.gateway, token).unwrap());
    let refused = forged.catalog().list_clinics(ListClinicsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let patient = suite.as_role(Role::Patient, &network.patient(&suite.desk(), "").await);
    let refused = patient.catalog().create_clinic(CreateClinicRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_REQUIRED"));
}

#[tokio::test]
async fn every_bad_field_of_a_booking_is_named() {
    let (suite, _) = super::start().await;
    let request = BookAppointmentRequest {
        request_id: "x".into(),
        patient_id: "42".into(),
        clinic_id: "not-an-id".into(),
        payment_method_id: "card".into(),
        ..Default::default()
    };
    let refused = suite.desk().booking().book_appointment(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    let expected =
        ["request_id", "patient_id", "service_type_id", "clinic_id", "start_time", "payment_method_id"];
    assert_eq!(bad_fields(&refused), expected);
}

#[tokio::test]
async fn a_patient_reaches_its_own_appointments_only() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let (own, other) = (network.patient(&desk, "").await, network.patient(&desk, "").await);
    let start = in_days(suite.servers.clock.now(), 3);
    let booked = desk.booking().book_appointment(network.booking(&own, &network.free_visit, start)).await;
    let read =
        GetAppointmentRequest { appointment_id: booked.unwrap().into_inner().id, ..Default::default() };
    assert!(suite.as_role(Role::Patient, &own).booking().get_appointment(read.clone()).await.is_ok());
    let hidden = suite.as_role(Role::Patient, &other).booking().get_appointment(read).await.unwrap_err();
    assert_eq!((hidden.code(), reason(&hidden).as_str()), (Code::NotFound, "APPOINTMENT_NOT_FOUND"));
    // Nor may it book for another, or choose as staff do.
    let as_own = suite.as_role(Role::Patient, &own);
    let for_other = network.booking(&other, &network.free_visit, in_days(suite.servers.clock.now(), 12));
    assert_eq!(as_own.booking().book_appointment(for_other).await.unwrap_err().code(), Code::NotFound);
    let mut with_room = network.booking(&own, &network.free_visit, in_days(suite.servers.clock.now(), 12));
    with_room.room_id.clone_from(&network.rooms[0]);
    assert_eq!(
        as_own.booking().book_appointment(with_room).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn the_role_is_checked_before_the_request_is_read() {
    let (suite, _) = super::start().await;
    let request = JoinWaitlistRequest::default();
    let answer = suite.desk().waitlist().join_waitlist(request.clone()).await.unwrap_err();
    assert_eq!(answer.code(), Code::InvalidArgument);
    let wrong_role = suite.as_role(Role::Manager, "ana").waitlist().join_waitlist(request).await.unwrap_err();
    assert_eq!(wrong_role.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn unknown_records_are_not_found_by_name() {
    let (suite, network) = super::start().await;
    let start = in_days(suite.servers.clock.now(), 3);
    let nobody = uuid::Uuid::now_v7().to_string();
    let request = network.booking(&nobody, &network.free_visit, start);
    let refused = suite.desk().booking().book_appointment(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "PATIENT_NOT_FOUND"));
    let patient = network.patient(&suite.desk(), "").await;
    let request = network.booking(&patient, &nobody, start);
    let refused = suite.desk().booking().book_appointment(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "SERVICE_TYPE_NOT_FOUND"));
}

//! Reservations that no booked visit stands behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use kit::ids::AppointmentId;
use kit::status::Error as KitError;
use proto::clinic::appointments::v1::booking_service_server::{BookingService, BookingServiceServer};
use proto::clinic::appointments::v1::{Appointment, AppointmentState, GetAppointmentRequest, VisitOutcome};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeState, DiscrepancyKind, VoidCause};
use tonic::{Request, Response, Status};

use crate::visits::{AFTER_BOOKING, completed};
use crate::world::{COPAY, World, usd};

/// Appointments, as far as reconciliation asks: those it knows.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<HashMap<String, AppointmentState>>>);

#[tonic::async_trait]
impl BookingService for Known {
    async fn get_appointment(
        &self,
        request: Request<GetAppointmentRequest>,
    ) -> Result<Response<Appointment>, Status> {
        let id = &request.get_ref().appointment_id;
        match self.0.lock().unwrap().get(id) {
            Some(state) => Ok(Response::new(Appointment { state: (*state).into(), ..Default::default() })),
            None => {
                let id: AppointmentId = id.parse().unwrap();
                Err(KitError::not_found(id).into_status("appointments.clinic"))
            }
        }
    }
}

impl Known {
    async fn serve(&self) -> String {
        let (listener, url) = testkit::listener().await;
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = BookingServiceServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        url
    }

    fn know(&self, request: &pb::AuthorizeCopayRequest, state: AppointmentState) {
        self.0.lock().unwrap().insert(request.appointment_id.clone(), state);
    }
}

async fn reconcile(world: &World, dry_run: bool) -> pb::ReconciliationReport {
    let request = pb::ReconcileRequest { dry_run, ..Default::default() };
    world.client(Role::Billing, "bo").reconcile(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_reservation_whose_visit_appointments_has_lost_is_voided_and_no_other() {
    let appointments = Known::default();
    let world = World::beside(appointments.serve().await).await;
    let patient = world.patient_with("pm_card_visa").await;
    let (booked, lost, expired) = (world.request(patient), world.request(patient), world.request(patient));
    appointments.know(&booked, AppointmentState::Booked);
    appointments.know(&expired, AppointmentState::Expired);
    for request in [&booked, &lost, &expired] {
        world.authorize(request).await.unwrap();
    }
    // Holds are young, and may yet be booked.
    assert_eq!(reconcile(&world, false).await.discrepancies_found, 0);
    world.servers.advance(TimeDelta::hours(2)).await;
    let dry = reconcile(&world, true).await;
    assert_eq!((dry.discrepancies_found, dry.discrepancies_repaired), (2, 0), "{}", dry.text);
    world.until_copay(&lost, ChargeState::Authorized).await;

    let report = reconcile(&world, false).await;
    assert_eq!((report.discrepancies_found, report.discrepancies_repaired), (2, 2), "{}", report.text);
    assert!(report.discrepancies.iter().all(|one| one.kind() == DiscrepancyKind::OrphanAuthorization));
    for request in [&lost, &expired] {
        world.until_copay(request, ChargeState::Voided).await;
        assert_eq!(world.standings(request).await, ["canceled"]);
    }
    assert_eq!(world.standings(&booked).await, ["requires_capture"]);
    for told in world.told::<pb::CopayVoided>(2).await {
        assert_eq!((told.cause(), told.released_amount), (VoidCause::Reconciliation, Some(usd(COPAY))));
    }
    assert_eq!(reconcile(&world, false).await.discrepancies_found, 0);

    // Had the visit been there after all, its co-pay is asked for when it was attended.
    world.tell(&lost, AFTER_BOOKING, &completed(&world, &lost, VisitOutcome::Attended)).await;
    world.until_copay(&lost, ChargeState::Captured).await;
}

#[tokio::test]
async fn nothing_is_voided_while_appointments_does_not_answer() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.servers.advance(TimeDelta::hours(2)).await;
    assert_eq!(reconcile(&world, false).await.discrepancies_found, 0);
    assert_eq!(world.standings(&request).await, ["requires_capture"]);
}

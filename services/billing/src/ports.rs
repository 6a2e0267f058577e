//! The other services, as billing needs them: one trait each, one adapter over gRPC.

use async_trait::async_trait;
use kit::client::Outbound;
use kit::ids::AppointmentId;
use kit::status::reason;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::{AppointmentState, GetAppointmentRequest};
use tonic::Status;

/// Knows visits.
#[async_trait]
pub trait Appointments: Send + Sync {
    /// Whether a visit that was held is gone without a trace of having been booked. An error says nothing.
    async fn is_gone(&self, appointment: AppointmentId) -> Result<bool, Status>;
}

/// The other services over gRPC.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Channel to appointments.
    pub appointments: Outbound,
}

#[async_trait]
impl Appointments for Remote {
    async fn is_gone(&self, appointment: AppointmentId) -> Result<bool, Status> {
        let request = GetAppointmentRequest { appointment_id: appointment.to_string(), ..Default::default() };
        match BookingServiceClient::new(self.appointments.clone()).get_appointment(request).await {
            Ok(visit) => Ok(match visit.get_ref().state() {
                AppointmentState::Expired | AppointmentState::Released | AppointmentState::Declined => true,
                // How these end is told by their events.
                AppointmentState::Unspecified
                | AppointmentState::Held
                | AppointmentState::Offered
                | AppointmentState::Booked
                | AppointmentState::Displaced
                | AppointmentState::CheckedIn
                | AppointmentState::Completed
                | AppointmentState::NoShow
                | AppointmentState::Cancelled => false,
            }),
            Err(status) if reason(&status) == "APPOINTMENT_NOT_FOUND" => Ok(true),
            Err(status) => Err(status),
        }
    }
}

//! Typed ids: a patient's id cannot be passed where an appointment's is meant.
//!
//! All are UUIDs, version 7 when assigned here (they sort by creation, which keeps indexes compact), written in lower-case
//! hyphenated text at the boundary.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// An id that a request names as text and a table stores as `uuid`.
pub trait Id: Copy + From<Uuid> + Into<Uuid> + fmt::Display + FromStr<Err = uuid::Error> {
    /// The resource's name as errors print it, such as `Appointment`.
    const KIND: &'static str;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type, serde::Serialize, serde::Deserialize)]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id; later ones sort after earlier ones.
            #[allow(clippy::new_without_default, reason = "a default id would be a different one each time")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The bare UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl Id for $name {
            const KIND: &'static str = $kind;
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A clinic.
    ClinicId = "Clinic",
    /// A room of one clinic.
    RoomId = "Room",
    /// A provider: the physician, nurse or therapist whom patients see.
    ProviderId = "Provider",
    /// A kind of visit.
    ServiceTypeId = "ServiceType",
    /// One rule of a provider's week.
    WeeklyTemplateId = "WeeklyTemplate",
    /// Time off or extra hours of one provider.
    ExceptionId = "Exception",
    /// Closed time of a clinic or of the whole network.
    BlackoutId = "Blackout",
    /// A calendar published under a link.
    CalendarLinkId = "CalendarLink",
    /// A hold, booking or visit: one row through its whole life.
    AppointmentId = "Appointment",
    /// Time held for one entry of the waitlist: the id of the appointment that holds it.
    OfferId = "Offer",
    /// A patient's wish for earlier time.
    WaitlistEntryId = "WaitlistEntry",
    /// A patient.
    PatientId = "Patient",
    /// An intake form.
    FormId = "Form",
    /// One patient's answers to one form.
    IntakeId = "Intake",
    /// A saved card.
    PaymentMethodId = "PaymentMethod",
    /// Money asked for one appointment.
    ChargeId = "Charge",
    /// A reminder planned for one version of an appointment.
    ReminderId = "Reminder",
    /// One text or e-mail.
    MessageId = "Message",
    /// A fact on the event stream.
    EventId = "Event",
    /// A caller's name for one attempt at a change (AIP-155).
    RequestId = "Request",
}

/// The boundary accepts hyphenated text only, in either case; it is always written in lower case.
fn parse(text: &str) -> Result<Uuid, uuid::Error> {
    const HYPHENATED: usize = 36;
    if text.len() == HYPHENATED { Uuid::try_parse(text) } else { Uuid::try_parse("") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hyphenated_text_is_an_id() {
        let id = PatientId::new();
        assert_eq!(id.to_string().parse::<PatientId>().expect("own text"), id);
        for bad in ["", "42", &id.uuid().simple().to_string(), &format!("{{{id}}}"), &format!("{id} ")] {
            assert!(bad.parse::<PatientId>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let (first, second) = (EventId::new(), EventId::new());
        assert!(first < second);
    }
}

//! The contract's `WaitlistService` at the door.

use kit::auth::{Caller, caller};
use kit::fields::Fields;
use kit::ids::{ClinicId, ProviderId};
use kit::page::Page;
use kit::status::Error as KitError;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::waitlist_service_server::WaitlistService;
use proto::google::r#type::DayOfWeek;
use tonic::{Request, Response, Status};

use super::{MAX_REASON, check, key};
use crate::app::{App, Join, ListEntries, ListOffers};
use crate::domain::waitlist::{EntryState, OfferState};
use crate::store::{EntryFilter, OfferFilter};
use crate::{DOMAIN, wire};

/// Clinics, or providers, that an entry names at most.
const MOST_NAMED: usize = 100;
/// The end of the day, in minutes after midnight.
const DAY: i16 = 24 * 60;
/// All days of the week.
const EVERY_DAY: i16 = 0b111_1111;

/// `WaitlistService`.
pub struct Waitlist {
    app: App,
}

impl Waitlist {
    /// The service.
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl WaitlistService for Waitlist {
    async fn join_waitlist(
        &self,
        request: Request<pb::JoinWaitlistRequest>,
    ) -> Result<Response<pb::WaitlistEntry>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let join = join(&caller, &request).map_err(|e| e.into_status(DOMAIN))?;
        Ok(Response::new(self.app.join(&caller, join).await?))
    }

    async fn leave_waitlist(
        &self,
        request: Request<pb::LeaveWaitlistRequest>,
    ) -> Result<Response<pb::WaitlistEntry>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let key = key(&mut fields, &caller, "LeaveWaitlist", &request.request_id, &request);
        let id = fields.id("waitlist_entry_id", &request.waitlist_entry_id);
        check(fields)?;
        Ok(Response::new(self.app.leave(&caller, id, key).await?))
    }

    async fn list_waitlist(
        &self,
        request: Request<pb::ListWaitlistRequest>,
    ) -> Result<Response<pb::ListWaitlistResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let list = list_entries(&caller, &request).map_err(|e| e.into_status(DOMAIN))?;
        let (waitlist_entries, next_page_token) = self.app.list_entries(&caller, &list).await?;
        Ok(Response::new(pb::ListWaitlistResponse { waitlist_entries, next_page_token }))
    }

    async fn list_offers(
        &self,
        request: Request<pb::ListOffersRequest>,
    ) -> Result<Response<pb::ListOffersResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let list = list_offers(&caller, &request).map_err(|e| e.into_status(DOMAIN))?;
        let (offers, next_page_token) = self.app.list_offers(&caller, &list).await?;
        Ok(Response::new(pb::ListOffersResponse { offers, next_page_token }))
    }

    async fn accept_offer(
        &self,
        request: Request<pb::AcceptOfferRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let key = key(&mut fields, &caller, "AcceptOffer", &request.request_id, &request);
        let id = fields.id("offer_id", &request.offer_id);
        let payment_method = fields.optional_id("payment_method_id", &request.payment_method_id);
        check(fields)?;
        let booked = self.app.accept(&caller, id, payment_method, key).await?;
        Ok(Response::new(wire::booked(&booked)))
    }

    async fn decline_offer(
        &self,
        request: Request<pb::DeclineOfferRequest>,
    ) -> Result<Response<pb::Offer>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let key = key(&mut fields, &caller, "DeclineOffer", &request.request_id, &request);
        let id = fields.id("offer_id", &request.offer_id);
        check(fields)?;
        Ok(Response::new(self.app.decline(&caller, id, key).await?))
    }
}

fn join(caller: &Caller, request: &pb::JoinWaitlistRequest) -> Result<Join, KitError> {
    let mut fields = Fields::new();
    let key = key(&mut fields, caller, "JoinWaitlist", &request.request_id, request);
    let id = fields.optional_id("waitlist_entry_id", &request.waitlist_entry_id);
    let Some(entry) = &request.waitlist_entry else {
        fields.refuse("waitlist_entry", "is required");
        fields.check()?;
        return Err(KitError::invalid("waitlist_entry", "is required"));
    };
    let at = |field: &str| format!("waitlist_entry.{field}");
    let mut clinics: Vec<ClinicId> = fields.ids(&at("clinic_ids"), &entry.clinic_ids);
    let mut providers: Vec<ProviderId> = fields.ids(&at("provider_ids"), &entry.provider_ids);
    for (field, count) in [("clinic_ids", clinics.len()), ("provider_ids", providers.len())] {
        fields.ensure(count <= MOST_NAMED, &at(field), "must have at most 100 ids");
    }
    clinics.sort_unstable();
    clinics.dedup();
    providers.sort_unstable();
    providers.dedup();
    let mut minute = |field: &str, value: Option<&proto::google::r#type::TimeOfDay>, unset: i16| {
        value.map_or(unset, |value| fields.minute_of_day(&at(field), Some(value)) as i16)
    };
    let from_minute = minute("start_from", entry.start_from.as_ref(), 0);
    let before_minute = minute("start_before", entry.start_before.as_ref(), DAY);
    fields.ensure(from_minute < before_minute, &at("start_before"), "must be after start_from");
    let mut weekdays = 0;
    for (i, day) in entry.days_of_week().enumerate() {
        match day {
            DayOfWeek::Unspecified => {
                fields.refuse(format!("{}[{i}]", at("days_of_week")), "must be a day of the week");
            }
            day => weekdays |= 1 << (day as i16 - 1),
        }
    }
    let reason = fields.text(&at("priority_reason"), &entry.priority_reason, 0..=MAX_REASON);
    let priority = fields.number(&at("priority"), entry.priority, 0..=9) as i16;
    fields.ensure(
        (priority > 0) != reason.is_empty(),
        &at("priority_reason"),
        "is required with a priority, and only then",
    );
    let join = Join {
        id,
        patient: fields.optional_id(&at("patient_id"), &entry.patient_id),
        service_type: fields.id(&at("service_type_id"), &entry.service_type_id),
        clinics: clinics.into_iter().map(ClinicId::uuid).collect(),
        providers: providers.into_iter().map(ProviderId::uuid).collect(),
        first_date: entry.first_date.as_ref().map(|d| fields.date(&at("first_date"), Some(d))),
        last_date: entry.last_date.as_ref().map(|d| fields.date(&at("last_date"), Some(d))),
        from_minute,
        before_minute,
        weekdays: if weekdays == 0 { EVERY_DAY } else { weekdays },
        priority,
        priority_reason: reason,
        auto_book: entry.auto_book,
        payment_method: fields.optional_id(&at("payment_method_id"), &entry.payment_method_id),
        replaces: fields.optional_id(&at("replaces_appointment_id"), &entry.replaces_appointment_id),
        key,
    };
    fields.check()?;
    Ok(join)
}

fn list_entries(caller: &Caller, request: &pb::ListWaitlistRequest) -> Result<ListEntries, KitError> {
    let mut fields = Fields::new();
    let named = fields.optional_id("patient_id", &request.patient_id);
    let clinic = fields.optional_id("clinic_id", &request.clinic_id);
    let service_type = fields.optional_id("service_type_id", &request.service_type_id);
    let mut states = vec![];
    for (i, asked) in request.states().enumerate() {
        match EntryState::ALL.into_iter().find(|state| wire::entry_state(*state) == asked) {
            Some(state) => states.push(state),
            None => fields.refuse(format!("states[{i}]"), "must be a state that entries have"),
        }
    }
    fields.check()?;
    if states.is_empty() {
        states = EntryState::ALL.into_iter().filter(|state| state.is_open()).collect();
    }
    let filter = EntryFilter { patient: named.or(caller.only_patient()), clinic, service_type, states };
    Ok(ListEntries { filter, page: Page::parse(request.page_size, &request.page_token)? })
}

fn list_offers(caller: &Caller, request: &pb::ListOffersRequest) -> Result<ListOffers, KitError> {
    let mut fields = Fields::new();
    let named = fields.optional_id("patient_id", &request.patient_id);
    let entry = fields.optional_id("waitlist_entry_id", &request.waitlist_entry_id);
    let mut states = vec![];
    for (i, asked) in request.states().enumerate() {
        match OfferState::ALL.into_iter().find(|state| wire::offer_state(*state) == asked) {
            Some(state) => states.push(state),
            None => fields.refuse(format!("states[{i}]"), "must be a state that offers have"),
        }
    }
    fields.check()?;
    if states.is_empty() {
        states.push(OfferState::Open);
    }
    let filter = OfferFilter { patient: named.or(caller.only_patient()), entry, states };
    Ok(ListOffers { filter, page: Page::parse(request.page_size, &request.page_token)? })
}

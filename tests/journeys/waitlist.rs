//! The waitlist across the services: from freed time to the visit of who waited for it.

use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use kit::fields::{date, timestamp};
use proto::clinic::appointments::v1::{
    AcceptOfferRequest, AppointmentState, CancelAppointmentRequest, CopayState, JoinWaitlistRequest,
    ListOffersRequest, Offer, WaitlistEntry, WaitlistEntryState,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::{ChargeState, ListChargesRequest};
use proto::clinic::scheduling::v1::{
    AddExceptionRequest, CalendarException, ExceptionKind, RemoveExceptionRequest,
};
use proto::google::r#type::Interval;
use testkit::network::{Network, ZONE, in_days};
use testkit::suite::RunningSuite;
use testkit::until;

/// Offers are made by day: moves on to the clinic's next ten o'clock.
async fn by_day(suite: &RunningSuite) -> DateTime<Utc> {
    let now = suite.servers.clock.now();
    let local = now.with_timezone(&ZONE);
    let ten = local.date_naive().and_hms_opt(10, 0, 0).unwrap().and_local_timezone(ZONE).unwrap();
    let ten = if local.hour() < 10 { ten } else { ten + TimeDelta::days(1) };
    suite.servers.advance_to(ten.with_timezone(&Utc)).await;
    suite.servers.clock.now()
}

async fn waits(
    suite: &RunningSuite,
    network: &Network,
    patient: &str,
    kind: &str,
    on: DateTime<Utc>,
) -> WaitlistEntry {
    let day = Some(date(on.with_timezone(&ZONE).date_naive()));
    let entry = WaitlistEntry {
        service_type_id: kind.into(),
        clinic_ids: vec![network.clinic.clone()],
        first_date: day,
        last_date: day,
        ..Default::default()
    };
    let request = JoinWaitlistRequest { waitlist_entry: Some(entry), ..Default::default() };
    suite.as_role(Role::Patient, patient).waitlist().join_waitlist(request).await.unwrap().into_inner()
}

async fn the_offer(suite: &RunningSuite, patient: &str) -> Offer {
    until("the offer", async || {
        let request = ListOffersRequest::default();
        let own = suite.as_role(Role::Patient, patient).waitlist().list_offers(request).await.unwrap();
        own.into_inner().offers.pop()
    })
    .await
}

#[tokio::test]
async fn a_visit_called_off_is_offered_and_its_copay_is_taken_from_who_accepts() {
    let (suite, network) = super::start().await;
    let start = in_days(by_day(&suite).await, 5);
    let desk = suite.desk();
    let (first, second) =
        (network.patient(&desk, "pm_card_visa").await, network.patient(&desk, "pm_card_visa").await);
    let booking = network.booking(&first, &network.paid_visit, start);
    let visit = desk.booking().book_appointment(booking).await.unwrap().into_inner();
    let entry = waits(&suite, &network, &second, &network.paid_visit, start).await;
    assert_eq!((entry.state(), entry.position), (WaitlistEntryState::Waiting, 1));
    let cancel = CancelAppointmentRequest { appointment_id: visit.id, ..Default::default() };
    desk.booking().cancel_appointment(cancel).await.unwrap();
    let offer = the_offer(&suite, &second).await;
    assert_eq!(offer.interval.unwrap().start_time, Some(timestamp(start)));
    let accept = AcceptOfferRequest { offer_id: offer.id.clone(), ..Default::default() };
    let own = suite.as_role(Role::Patient, &second);
    let booked = own.waitlist().accept_offer(accept).await.unwrap().into_inner();
    assert_eq!((booked.state(), booked.id.clone()), (AppointmentState::Booked, offer.id));
    assert_eq!(booked.copay.unwrap().state(), CopayState::Authorized);
    let charges = ListChargesRequest { appointment_id: booked.id, ..Default::default() };
    let charges = desk.billing().list_charges(charges).await.unwrap().into_inner().charges;
    assert_eq!(charges.iter().map(|charge| charge.state()).collect::<Vec<_>>(), [ChargeState::Authorized]);
}

#[tokio::test]
async fn a_day_off_taken_back_is_offered_to_who_waits_for_that_day() {
    let (suite, network) = super::start().await;
    let start = in_days(by_day(&suite).await, 5);
    let (desk, admin) = (suite.desk(), suite.admin());
    let off = CalendarException {
        provider_id: network.provider.clone(),
        kind: ExceptionKind::TimeOff as i32,
        interval: Some(Interval {
            start_time: Some(timestamp(start)),
            end_time: Some(timestamp(start + TimeDelta::minutes(30))),
        }),
        ..Default::default()
    };
    let request = AddExceptionRequest { exception: Some(off), ..Default::default() };
    let off = admin.calendar().add_exception(request).await.unwrap().into_inner();
    let patient = network.patient(&desk, "").await;
    let entry = waits(&suite, &network, &patient, &network.free_visit, start).await;
    let request = RemoveExceptionRequest { exception_id: off.id, ..Default::default() };
    admin.calendar().remove_exception(request).await.unwrap();
    let offer = the_offer(&suite, &patient).await;
    let begins = offer.interval.unwrap().start_time.unwrap().seconds;
    assert!((start.timestamp()..start.timestamp() + 30 * 60).contains(&begins), "{offer:?}");
    assert_eq!(offer.waitlist_entry_id, entry.id);
}

//! A provider's vacation over a day of booked visits: what is held is let go, every patient is told once and has other places to choose
//! from, and in the end every visit is moved, called off, on the front desk's list, or stands again.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use kit::fields::timestamp;
use proto::clinic::appointments::v1::{
    AcceptOfferRequest, Appointment, AppointmentDisplaced, AppointmentRescheduled, AppointmentState,
    CancelAppointmentRequest, DeclineOfferRequest, GetAppointmentRequest, HoldSlotRequest,
    ListAppointmentsRequest, ListOffersRequest, RescheduleAppointmentRequest,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::{
    AddExceptionRequest, CalendarException, ExceptionKind, RemoveExceptionRequest,
};
use proto::google::r#type::Interval;
use testkit::network::{Network, in_days};
use testkit::suite::{Desk, RunningSuite};
use testkit::{collect, until};

use crate::changes::until_state;

/// Visits of the vacation, of 15 minutes, one after the other.
const VISITS: usize = 40;
/// Of these, so many are moved by their patients at the portal,
const MOVED: usize = 8;
/// so many by a digit,
const BY_TEXT: usize = 4;
/// so many called off;
const CANCELLED: usize = 5;
/// so many patients turn every place down. The others do not answer,
const DECLINED: usize = 5;
/// and the front desk moves so many of those.
const BY_DESK: usize = 3;

fn start_of(interval: Option<Interval>) -> i64 {
    interval.unwrap().start_time.unwrap().seconds
}

async fn book(desk: &Desk, network: &Network, start: DateTime<Utc>) -> Vec<Appointment> {
    let mut visits = vec![];
    for n in 0..VISITS {
        let patient = network.patient(desk, "").await;
        let at = start + TimeDelta::minutes(15 * n as i64);
        let request = network.booking(&patient, &network.free_visit, at);
        visits.push(desk.booking().book_appointment(request).await.unwrap().into_inner());
    }
    visits
}

async fn work_list(desk: &Desk, network: &Network) -> HashSet<String> {
    let request = ListAppointmentsRequest {
        clinic_id: network.clinic.clone(),
        on_work_list: true,
        page_size: 500,
        ..Default::default()
    };
    let listed = desk.booking().list_appointments(request).await.unwrap().into_inner().appointments;
    assert!(listed.iter().all(|visit| visit.state() == AppointmentState::Displaced));
    listed.into_iter().map(|visit| visit.id).collect()
}

async fn read(desk: &Desk, id: &str) -> Appointment {
    let request = GetAppointmentRequest { appointment_id: id.into(), ..Default::default() };
    desk.booking().get_appointment(request).await.unwrap().into_inner()
}

fn to(visit: &Appointment, start: i64) -> RescheduleAppointmentRequest {
    RescheduleAppointmentRequest {
        appointment_id: visit.id.clone(),
        start_time: Some(prost_types::Timestamp { seconds: start, nanos: 0 }),
        ..Default::default()
    }
}

/// Starts of the provider's free times on the days around, as a search finds them.
async fn free(suite: &RunningSuite, network: &Network, start: DateTime<Utc>) -> HashSet<i64> {
    let slots = network.slots(&suite.desk(), &network.free_visit, start).await;
    slots.iter().map(|slot| start_of(slot.interval)).collect()
}

#[tokio::test]
async fn a_vacation_over_forty_visits_leaves_each_moved_called_off_on_the_list_or_standing_again() {
    let (suite, network) = super::start().await;
    let (desk, admin, broker) = (suite.desk(), suite.admin(), suite.servers.broker().await);
    let start = in_days(suite.servers.clock.now(), 5);
    let end = start + TimeDelta::minutes(15 * VISITS as i64 + 60);
    let visits = book(&desk, &network, start).await;
    let hold = HoldSlotRequest {
        patient_id: network.patient(&desk, "").await,
        service_type_id: network.free_visit.clone(),
        clinic_id: network.clinic.clone(),
        provider_id: network.provider.clone(),
        start_time: Some(timestamp(end - TimeDelta::minutes(30))),
        ..Default::default()
    };
    let hold = desk.booking().hold_slot(hold).await.unwrap().into_inner();
    let vacation = CalendarException {
        provider_id: network.provider.clone(),
        kind: ExceptionKind::TimeOff as i32,
        interval: Some(Interval { start_time: Some(timestamp(start)), end_time: Some(timestamp(end)) }),
        ..Default::default()
    };
    let request = AddExceptionRequest { exception: Some(vacation), ..Default::default() };
    let vacation = admin.calendar().add_exception(request).await.unwrap().into_inner();
    let away = start.timestamp()..end.timestamp();
    let found = free(&suite, &network, start).await;
    assert!(!found.is_empty() && found.iter().all(|slot| !away.contains(slot)), "right at once");

    until_state(&desk, &hold.id, AppointmentState::Released).await;
    let told: Vec<AppointmentDisplaced> = collect(&broker, "appointments", VISITS).await;
    let whom: HashSet<_> = told.iter().map(|told| told.appointment_id.clone()).collect();
    assert_eq!(whom.len(), VISITS, "each once");
    let places: HashSet<_> =
        told.iter().flat_map(|told| &told.alternatives).map(|place| start_of(place.interval)).collect();
    assert_eq!(places.len(), 3 * VISITS, "three for each, none for two");
    assert!(places.iter().all(|start| !away.contains(start)));
    until("a search without what is held", async || {
        free(&suite, &network, start).await.is_disjoint(&places).then_some(())
    })
    .await;

    let alternatives = |visit: &Appointment| {
        told.iter().find(|told| told.appointment_id == visit.id).unwrap().alternatives.clone()
    };
    let mut left = visits.iter();
    let mut moved = vec![];
    for (n, visit) in left.by_ref().take(MOVED).enumerate() {
        let place = &alternatives(visit)[n % 3];
        let accept = AcceptOfferRequest { offer_id: place.offer_id.clone(), ..Default::default() };
        let own = suite.as_role(Role::Patient, &visit.patient_id);
        let answer = own.waitlist().accept_offer(accept).await.unwrap().into_inner();
        assert_eq!((&answer.id, answer.state()), (&visit.id, AppointmentState::Booked));
        moved.push((visit.id.clone(), start_of(place.interval)));
    }
    for (n, visit) in left.by_ref().take(BY_TEXT).enumerate() {
        let place = start_of(alternatives(visit)[n % 3].interval);
        let notify = suite.as_role(Role::Service, "notify");
        notify.booking().reschedule_appointment(to(visit, place)).await.unwrap();
        moved.push((visit.id.clone(), place));
    }
    for visit in left.by_ref().take(CANCELLED) {
        let cancel = CancelAppointmentRequest { appointment_id: visit.id.clone(), ..Default::default() };
        let own = suite.as_role(Role::Patient, &visit.patient_id);
        let answer = own.booking().cancel_appointment(cancel).await.unwrap().into_inner();
        assert!(!answer.cancellation.unwrap().fee_due);
    }
    let mut list = HashSet::new();
    for visit in left.by_ref().take(DECLINED) {
        let own = suite.as_role(Role::Patient, &visit.patient_id);
        for place in alternatives(visit) {
            let decline = DeclineOfferRequest { offer_id: place.offer_id, ..Default::default() };
            own.waitlist().decline_offer(decline).await.unwrap();
        }
        list.insert(visit.id.clone());
    }
    until("those who want none", async || (work_list(&desk, &network).await == list).then_some(())).await;
    let silent: Vec<_> = left.collect();
    suite.servers.advance(TimeDelta::days(1)).await;
    list.extend(silent.iter().map(|visit| visit.id.clone()));
    until("those who did not answer", async || (work_list(&desk, &network).await == list).then_some(()))
        .await;

    // The desk settles some of them; then the provider stays after all.
    for (n, visit) in silent.iter().take(BY_DESK).enumerate() {
        let place = (end + TimeDelta::days(1) + TimeDelta::minutes(15 * n as i64)).timestamp();
        desk.booking().reschedule_appointment(to(visit, place)).await.unwrap();
        moved.push((visit.id.clone(), place));
        list.remove(&visit.id);
    }
    let request = RemoveExceptionRequest { exception_id: vacation.id, ..Default::default() };
    admin.calendar().remove_exception(request).await.unwrap();
    until("an empty list", async || work_list(&desk, &network).await.is_empty().then_some(())).await;
    for visit in &visits {
        let now = read(&desk, &visit.id).await;
        match moved.iter().find(|(id, _)| *id == visit.id) {
            Some((_, place)) => {
                assert_eq!((now.state(), start_of(now.interval)), (AppointmentState::Booked, *place));
            }
            None if list.contains(&visit.id) => {
                assert_eq!((now.state(), now.interval), (AppointmentState::Booked, visit.interval));
                assert_eq!(now.displacement, None);
            }
            None => assert_eq!(now.state(), AppointmentState::Cancelled),
        }
    }
    let open = desk.waitlist().list_offers(ListOffersRequest::default()).await.unwrap().into_inner().offers;
    assert_eq!(open, []);
    let rescheduled: Vec<AppointmentRescheduled> =
        collect(&broker, "appointments", moved.len() + list.len()).await;
    assert_eq!(rescheduled.iter().filter(|told| !told.offer_id.is_empty()).count(), MOVED + BY_TEXT);
    let told_again: i64 = sqlx::query_scalar(
        "select count(*) from appointments.outbox where subject like '%AppointmentDisplaced'",
    )
    .fetch_one(&mut suite.servers.admin().await)
    .await
    .unwrap();
    assert_eq!(told_again, VISITS as i64);
}

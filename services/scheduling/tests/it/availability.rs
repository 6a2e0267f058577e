//! From a catalog and a template to slots, and what takes them away.

use chrono::TimeZone as _;
use chrono_tz::America::New_York;
use kit::ids::{AppointmentId, ServiceTypeId};
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentFacts, AppointmentState,
};
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, AddExceptionRequest, AvailabilityView, Blackout, BlockCode, CalendarChangeCause,
    CalendarChanged, CalendarException, CheckSlotRequest, DateSpan, DeleteWeeklyTemplateRequest,
    ExceptionKind, ListBlackoutsRequest, RemoveBlackoutRequest, SearchAvailabilityRequest, ServiceType, Slot,
    UpdateServiceTypeRequest, blackout,
};
use proto::google::r#type::Interval;
use tonic::Code;

use super::{Suite, World, bad_fields, code_and_reason, making, times};

/// What appointments would tell about a booked slot.
pub(crate) fn facts(world: &World, slot: &Slot, state: AppointmentState) -> AppointmentFacts {
    let booked = making::facts(&world.room, &slot.provider_id, slot.interval.expect("an interval"));
    AppointmentFacts { state: state.into(), service_type_id: world.service.id.clone(), ..booked }
}

fn check(world: &World, slot: &Slot) -> CheckSlotRequest {
    CheckSlotRequest {
        service_type_id: world.service.id.clone(),
        clinic_id: world.clinic.id.clone(),
        provider_id: world.provider.id.clone(),
        start_time: slot.interval.and_then(|i| i.start_time),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_gives_the_expected_slots_page_by_page_and_by_day() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 4);
    let found = suite.until("the slots", &search, |found| !found.slots.is_empty()).await;
    assert_eq!(times(&found), ["09:00", "09:30", "10:00", "10:30", "09:00", "09:30", "10:00", "10:30"]);
    assert_eq!(found.slots[0].local_start[..10], suite.day(3).to_string());
    assert_eq!(found.calendar_versions.get(&world.provider.id), Some(&world.template.calendar_version));

    let mut paged = vec![];
    let mut request = SearchAvailabilityRequest { page_size: 3, ..search.clone() };
    loop {
        let page = suite.availability().search_availability(request.clone()).await.unwrap().into_inner();
        paged.extend(page.slots);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(paged, found.slots);

    let request = SearchAvailabilityRequest { view: AvailabilityView::DayCounts.into(), ..search };
    let counts = suite.availability().search_availability(request).await.unwrap().into_inner();
    let counts: Vec<_> = counts.day_counts.into_iter().map(|d| (d.date, d.clinic_id, d.slots)).collect();
    let day = |ahead| Some(kit::fields::date(suite.day(ahead)));
    assert_eq!(counts, [(day(3), world.clinic.id.clone(), 4), (day(4), world.clinic.id, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_takes_its_slot_and_a_cancellation_gives_it_back_whatever_comes_late() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 3);
    let slots = suite.until("the slots", &search, |found| found.slots.len() == 4).await.slots;
    let (broker, id) = (suite.servers.broker().await, AppointmentId::new());

    let booked = AppointmentBooked {
        appointment_id: id.to_string(),
        version: 2,
        appointment: Some(facts(&world, &slots[1], AppointmentState::Booked)),
        ..Default::default()
    };
    testkit::publish(&broker, "appointments", id, 2, &booked).await;
    let left = suite.until("the slot goes", &search, |found| found.slots.len() == 3).await;
    assert_eq!(times(&left), ["09:00", "10:00", "10:30"]);

    let cancelled = AppointmentCancelled {
        appointment_id: id.to_string(),
        version: 3,
        appointment: Some(facts(&world, &slots[1], AppointmentState::Cancelled)),
        ..Default::default()
    };
    testkit::publish(&broker, "appointments", id, 3, &cancelled).await;
    suite.until("the slot comes back", &search, |found| found.slots.len() == 4).await;

    // The booking again, late, as another event: an older version changes nothing. A booking after it is a fence.
    testkit::publish(&broker, "appointments", id, 2, &booked).await;
    let fence = AppointmentId::new();
    let other = AppointmentBooked {
        appointment_id: fence.to_string(),
        version: 1,
        appointment: Some(facts(&world, &slots[3], AppointmentState::Booked)),
        ..Default::default()
    };
    testkit::publish(&broker, "appointments", fence, 1, &other).await;
    let left = suite.until("the fence", &search, |found| found.slots.len() < 4).await;
    assert_eq!(times(&left), ["09:00", "09:30", "10:00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blackout_removes_its_day_and_is_told_to_every_provider_it_concerns() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 5);
    suite.until("the slots", &search, |found| found.slots.len() == 12).await;

    let day = kit::fields::date(suite.day(4));
    let span = blackout::Span::Days(DateSpan { first_date: Some(day), last_date: None });
    let blackout = Blackout { name: "Thanksgiving".into(), span: Some(span), ..Default::default() };
    let request = AddBlackoutRequest { blackout: Some(blackout), ..Default::default() };
    let added = suite.calendar().add_blackout(request).await.unwrap().into_inner();
    let left = suite.until("the day goes", &search, |found| found.slots.len() == 8).await;
    let closed = suite.day(4).to_string();
    assert!(left.slots.iter().all(|slot| slot.local_start[..10] != closed));

    let told: Vec<CalendarChanged> = testkit::collect(&suite.servers.broker().await, "scheduling", 3).await;
    let causes: Vec<_> = told.iter().map(|e| (e.version, e.cause())).collect();
    let expected = [
        (1, CalendarChangeCause::Provider),
        (2, CalendarChangeCause::WeeklyTemplate),
        (3, CalendarChangeCause::Blackout),
    ];
    assert_eq!(causes, expected);
    assert_eq!(told[2].source_id, added.id);
    assert_eq!(told[2].affected.len(), 1);

    let request = RemoveBlackoutRequest { blackout_id: added.id, ..Default::default() };
    suite.calendar().remove_blackout(request).await.unwrap();
    suite.until("the day comes back", &search, |found| found.slots.len() == 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blackouts_of_a_clinic_are_listed_by_the_days_of_its_own_clock() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    // 22:00 in New York is tomorrow in UTC.
    let at = |hour| {
        let start = New_York.from_local_datetime(&suite.day(4).and_hms_opt(hour, 0, 0).unwrap()).unwrap();
        Some(kit::fields::timestamp(start.to_utc()))
    };
    let span = blackout::Span::Interval(Interval { start_time: at(22), end_time: at(23) });
    let blackout = Blackout { name: "Water is off".into(), span: Some(span), ..Default::default() };
    let request = AddBlackoutRequest { blackout: Some(blackout), ..Default::default() };
    suite.calendar().add_blackout(request).await.unwrap();
    let (here, anywhere) = (world.clinic.id.as_str(), "");
    for (clinic_id, ahead, expected) in
        [(here, 3, 0), (here, 4, 1), (here, 5, 0), (anywhere, 5, 1), (anywhere, 2, 0)]
    {
        let day = DateSpan { first_date: Some(kit::fields::date(suite.day(ahead))), last_date: None };
        let request =
            ListBlackoutsRequest { clinic_id: clinic_id.to_owned(), days: Some(day), ..Default::default() };
        let found = suite.calendar().list_blackouts(request).await.unwrap().into_inner().blackouts;
        assert_eq!(found.len(), expected, "{clinic_id:?}, {ahead} days ahead");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_left_out_follows_the_duration() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 3);
    let found = suite.until("the slots", &search, |found| !found.slots.is_empty()).await;
    assert_eq!(times(&found), ["09:00", "09:30", "10:00", "10:30"]);
    let wish = ServiceType { duration_minutes: 60, ..world.service };
    let mask = prost_types::FieldMask { paths: vec!["duration_minutes".into()] };
    let request =
        UpdateServiceTypeRequest { service_type: Some(wish), update_mask: Some(mask), ..Default::default() };
    let longer = suite.catalog().update_service_type(request).await.unwrap().into_inner();
    assert_eq!((longer.duration_minutes, longer.step_minutes), (60, 0));
    let found = suite.until("the longer visits", &search, |found| found.slots.len() < 4).await;
    assert_eq!(times(&found), ["09:00", "10:00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_add_and_take_time_and_a_deleted_template_offers_nothing() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 3);
    let slots = suite.until("the slots", &search, |found| found.slots.len() == 4).await.slots;
    let end = |slot: &Slot| slot.interval.and_then(|i| i.end_time);
    let exception = |kind: ExceptionKind, interval| CalendarException {
        provider_id: world.provider.id.clone(),
        clinic_id: world.clinic.id.clone(),
        kind: kind.into(),
        interval: Some(interval),
        ..Default::default()
    };
    let add = |exception| AddExceptionRequest { exception: Some(exception), ..Default::default() };

    let hour_more = end(&slots[3]).map(|t| prost_types::Timestamp { seconds: t.seconds + 3_600, nanos: 0 });
    let extra =
        exception(ExceptionKind::ExtraHours, Interval { start_time: end(&slots[3]), end_time: hour_more });
    suite.calendar().add_exception(add(extra)).await.unwrap();
    suite.until("extra hours", &search, |found| found.slots.len() == 6).await;

    let off = Interval { start_time: slots[0].interval.and_then(|i| i.start_time), end_time: end(&slots[1]) };
    let off = exception(ExceptionKind::TimeOff, off);
    let off = suite.calendar().add_exception(add(off)).await.unwrap().into_inner();
    let left = suite.until("time off", &search, |found| found.slots.len() == 4).await;
    assert_eq!(times(&left), ["10:00", "10:30", "11:00", "11:30"]);
    assert_eq!(left.calendar_versions.get(&world.provider.id), Some(&off.calendar_version));

    let request =
        DeleteWeeklyTemplateRequest { weekly_template_id: world.template.id.clone(), ..Default::default() };
    let deleted = suite.calendar().delete_weekly_template(request).await.unwrap().into_inner();
    assert_eq!(deleted.calendar_version, off.calendar_version + 1);
    let left = suite.until("only the extra hours", &search, |found| found.slots.len() == 2).await;
    assert_eq!(times(&left), ["11:00", "11:30"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_a_booking_all_it_needs_and_every_rule_that_blocks_it() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 3);
    let slots = suite.until("the slots", &search, |found| found.slots.len() == 4).await.slots;

    let good = suite.booking().check_slot(check(&world, &slots[0])).await.unwrap().into_inner();
    assert!(good.ok && good.blocks.is_empty());
    assert_eq!(good.room_ids, [world.room.id.as_str()]);
    assert_eq!(good.interval, slots[0].interval);
    assert_eq!(good.visit_date, Some(kit::fields::date(suite.day(3))));
    assert_eq!(good.time_zone, super::ZONE);
    let version = world.template.calendar_version;
    let providers: Vec<_> =
        good.providers.iter().map(|p| (p.provider_id.as_str(), p.calendar_version)).collect();
    assert_eq!(providers, [(world.provider.id.as_str(), version)]);

    // Ten minutes before opening time: closed, outside the shift, off the step.
    let early = slots[0].interval.and_then(|i| i.start_time).map(|t| t.seconds - 70 * 60);
    let start_time = early.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
    let bad = CheckSlotRequest { start_time, ..check(&world, &slots[0]) };
    let refused = suite.booking().check_slot(bad.clone()).await.unwrap().into_inner();
    let codes: Vec<_> = refused.blocks.iter().map(|b| b.code()).collect();
    assert_eq!(codes, [BlockCode::OutsideSchedule, BlockCode::ClinicClosed, BlockCode::OffStep]);
    assert!(!refused.ok && refused.room_ids.is_empty());
    let overridden = CheckSlotRequest { overriding: true, ..bad.clone() };
    let overridden = suite.booking().check_slot(overridden).await.unwrap().into_inner();
    assert!(overridden.ok && overridden.blocks.len() == 3 && overridden.room_ids.len() == 1);

    // A visit that stands is judged by the calendar alone, at its own length.
    let standing_end_time = slots[3].interval.and_then(|i| i.end_time);
    let standing = CheckSlotRequest { standing_end_time, ..check(&world, &slots[0]) };
    assert!(suite.booking().check_slot(standing).await.unwrap().into_inner().ok);

    let any = CheckSlotRequest { provider_id: String::new(), ..check(&world, &slots[0]) };
    let any = suite.booking().check_slot(any).await.unwrap().into_inner();
    assert_eq!((any.ok, any.providers.len()), (true, 1));

    let unknown = ServiceTypeId::new().to_string();
    let missing = CheckSlotRequest { service_type_id: unknown, ..check(&world, &slots[0]) };
    let missing = suite.booking().check_slot(missing).await.unwrap_err();
    assert_eq!(code_and_reason(&missing), (Code::NotFound, "SERVICE_TYPE_NOT_FOUND".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_names_every_bad_field() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let mut search = suite.search(&world, 3, 80);
    search.page_size = -1;
    let query = search.query.as_mut().unwrap();
    query.service_type_id = String::new();
    query.clinic_ids = vec!["x".into()];
    query.days_of_week = vec![1, 9];
    query.start_before = Some(kit::fields::time_of_day(0));
    let status = suite.availability().search_availability(search).await.unwrap_err();
    assert_eq!(
        bad_fields(&status),
        [
            "query.last_date",
            "query.start_before",
            "query.days_of_week[1]",
            "query.service_type_id",
            "query.clinic_ids[0]",
            "page_size",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_from_today_reaches_as_far_as_the_day_that_has_begun_somewhere() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    for (last, good) in [(62, true), (63, false)] {
        let mut search = suite.search(&world, 0, last);
        search.query.as_mut().unwrap().first_date = None;
        let answer = suite.availability().search_availability(search).await;
        let refused = answer.err().map_or(vec![], |status| bad_fields(&status));
        assert_eq!(refused.is_empty(), good, "{last}: {refused:?}");
    }
}

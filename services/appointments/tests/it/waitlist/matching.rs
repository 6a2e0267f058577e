//! Which freed time goes to whom, from every source of it.

use appointments::app::{Join, Move, Slot};
use chrono::Datelike as _;
use kit::ids::{PatientId, ProviderId, ServiceTypeId};
use proto::clinic::scheduling::v1::BlockCode;
use testkit::until;

use super::*;
use crate::harness::{World, hear_of_merge, minutes, to};

/// A kind of visit of so many minutes.
fn kind(calendar: &Calendar, length: i32) -> ServiceTypeId {
    let kind = ServiceTypeId::new();
    calendar.script().minutes.insert(kind, length);
    kind
}

fn of_kind(world: &World, service_type: ServiceTypeId) -> Join {
    Join { service_type, ..anything(world) }
}

/// Minutes after `start` at which each entry's open offer begins; `None` = it has none.
async fn placed<const N: usize>(
    world: &World,
    start: DateTime<Utc>,
    entries: [&pb::WaitlistEntry; N],
) -> [Option<i64>; N] {
    let open = open_offers(world).await;
    entries.map(|entry| {
        let own = open.iter().find(|offer| offer.waitlist_entry_id == entry.id)?;
        Some((start_of(own) - start.timestamp()) / 60)
    })
}

#[tokio::test]
async fn freed_half_an_hour_serves_one_of_thirty_minutes_or_two_of_fifteen() {
    let (world, calendar) = world().await;
    let (half_hour, start) = (kind(&calendar, 30), ten_o_clock(&world, 0));
    let free_half_an_hour = async || {
        let slot = Slot { service_type: half_hour, ..world.slot(start) };
        // Neighbours, so that nothing but the half hour is free.
        let visit = world.take(slot).await.unwrap();
        world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
        look(&world).await;
    };
    world.booked(start - minutes(15)).await;
    world.booked(start + minutes(30)).await;
    let short = joined(&world, anything(&world)).await;
    let long = joined(&world, of_kind(&world, half_hour)).await;
    free_half_an_hour().await;
    assert_eq!(placed(&world, start, [&short, &long]).await, [None, Some(0)], "the most time is filled");
    world.app.decline(&desk(), id_of(&the_offer(&world).await), None).await.unwrap();

    let another = joined(&world, anything(&world)).await;
    let late = joined(&world, of_kind(&world, half_hour)).await;
    look(&world).await;
    let expected = [Some(0), None, Some(15), None];
    assert_eq!(placed(&world, start, [&short, &long, &another, &late]).await, expected, "then age");
    for offer in open_offers(&world).await {
        world.app.decline(&desk(), id_of(&offer), None).await.unwrap();
    }
    let urgent = joined(&world, urgent(of_kind(&world, half_hour), 1)).await;
    joined(&world, anything(&world)).await;
    look(&world).await;
    assert_eq!(placed(&world, start, [&urgent, &late]).await, [Some(0), None], "priority before age");
}

#[tokio::test]
async fn freed_time_grows_by_what_is_free_beside_it() {
    let (world, calendar) = world().await;
    let (half_hour, start) = (kind(&calendar, 30), ten_o_clock(&world, 0));
    world.booked(start - minutes(15)).await;
    let entry = joined(&world, of_kind(&world, half_hour)).await;
    freed(&world, start).await;
    look(&world).await;
    assert_eq!(placed(&world, start, [&entry]).await, [Some(0)]);
}

#[tokio::test]
async fn only_days_times_places_and_providers_that_suit_are_offered() {
    let (world, _) = world().await;
    let start = ten_o_clock(&world, 0);
    let (day, ten) = (start.date_naive(), 10 * 60);
    let tomorrow = day + TimeDelta::days(1);
    let other_days = 127 & !(1 << day.weekday().num_days_from_monday());
    let any = || anything(&world);
    let unsuited = [
        Join { first_date: Some(tomorrow), ..any() },
        Join { last_date: Some(day - TimeDelta::days(1)), ..any() },
        Join { from_minute: ten + 15, ..any() },
        Join { before_minute: ten, ..any() },
        Join { weekdays: other_days, ..any() },
        Join { clinics: vec![PatientId::new().uuid()], ..any() },
        Join { providers: vec![ProviderId::new().uuid()], ..any() },
    ];
    for join in unsuited {
        joined(&world, join).await;
    }
    // Only ten o'clock itself is free.
    world.booked(start - minutes(15)).await;
    world.booked(start + minutes(15)).await;
    freed(&world, start).await;
    look(&world).await;
    assert!(open_offers(&world).await.is_empty());
    let exact = Join {
        first_date: Some(day),
        last_date: Some(day),
        from_minute: ten,
        before_minute: ten + 1,
        weekdays: 127 & !other_days,
        ..any()
    };
    let entry = joined(&world, exact).await;
    freed(&world, start).await;
    look(&world).await;
    assert_eq!(the_offer(&world).await.waitlist_entry_id, entry.id);
}

#[tokio::test]
async fn a_crowd_with_other_offers_or_other_hours_does_not_hide_who_is_behind_it() {
    /// More than are looked at first.
    const CROWD: i64 = 101;
    let (world, _) = world().await;
    let start = ten_o_clock(&world, 0);
    for _ in 0..CROWD {
        joined(&world, anything(&world)).await;
    }
    for n in 0..CROWD {
        freed(&world, start + minutes(15 * n)).await;
    }
    until("everyone has an offer", async || {
        look(&world).await;
        let open = "select count(*) from offer where state = 'open'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(world.db.pool()).await.unwrap();
        (open == CROWD).then_some(())
    })
    .await;
    // They would come, were the time beside it free.
    let later = start + TimeDelta::days(7);
    for _ in 0..CROWD {
        joined(&world, Join { before_minute: 10 * 60, ..anything(&world) }).await;
    }
    let entry = joined(&world, anything(&world)).await;
    freed(&world, later).await;
    look(&world).await;
    let states = vec![OfferState::Open];
    let filter = OfferFilter { entry: Some(entry_id(&entry)), states, ..OfferFilter::default() };
    let list = ListOffers { filter, page: Page::parse(0, "").unwrap() };
    let (offers, _) = world.app.list_offers(&desk(), &list).await.unwrap();
    assert_eq!(offers.iter().map(start_of).collect::<Vec<_>>(), [later.timestamp()]);
}

#[tokio::test]
async fn the_schedules_no_goes_to_the_next_kind_of_visit() {
    let (world, calendar) = world().await;
    let (elsewhere, start) = (ServiceTypeId::new(), ten_o_clock(&world, 0));
    calendar.script().not_offered.push(elsewhere);
    joined(&world, urgent(of_kind(&world, elsewhere), 9)).await;
    let entry = joined(&world, anything(&world)).await;
    freed(&world, start).await;
    look(&world).await;
    assert_eq!(the_offer(&world).await.waitlist_entry_id, entry.id);
}

#[tokio::test]
async fn a_visit_that_is_longer_by_now_is_offered_where_it_fits() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    world.booked(start - minutes(15)).await;
    let entry = joined(&world, anything(&world)).await;
    freed(&world, start).await;
    calendar.script().minutes.insert(world.service_type, 45);
    look(&world).await;
    let offer = the_offer(&world).await;
    let interval = offer.interval.unwrap();
    assert_eq!(offer.waitlist_entry_id, entry.id);
    assert_eq!(interval.end_time.unwrap().seconds - interval.start_time.unwrap().seconds, 45 * 60);
}

#[tokio::test]
async fn every_source_of_freed_time_finds_who_waits() {
    let (world, calendar) = world().await;
    let next = async |what: &str, start: DateTime<Utc>| {
        let entry = joined(&world, anything(&world)).await;
        look(&world).await;
        let offer = the_offer(&world).await;
        assert_eq!(
            (offer.waitlist_entry_id.as_str(), start_of(&offer)),
            (entry.id.as_str(), start.timestamp()),
            "{what}"
        );
        accept(&world, &desk(), &offer).await.unwrap();
    };
    // Somebody must wait for time that is to be noted.
    let never = Join { from_minute: 0, before_minute: 1, ..anything(&world) };
    joined(&world, Join { service_type: ServiceTypeId::new(), ..never }).await;

    let start = |days| ten_o_clock(&world, days);
    freed(&world, start(0)).await;
    next("a cancellation", start(0)).await;

    let moved = world.booked(start(1)).await;
    world.app.reschedule(&desk(), &to(moved.id, start(1) + minutes(120))).await.unwrap();
    next("a visit moved away", start(1)).await;

    let hold = world.app.hold(&desk(), &world.slot(start(2)), None).await.unwrap();
    world.app.release(&desk(), change(hold.id.parse().unwrap())).await.unwrap();
    next("a hold given back", start(2)).await;

    world.app.hold(&desk(), &world.slot(start(3)), None).await.unwrap();
    world.servers.advance(minutes(5)).await;
    next("a hold that ran out", start(3)).await;

    let block = calendar.block(BlockCode::TimeOff, start(4));
    world
        .app
        .reschedule(
            &desk(),
            &Move { provider: Some(ProviderId::new()), ..to(moved.id, start(4) + minutes(120)) },
        )
        .await
        .unwrap();
    look(&world).await;
    calendar.unblock();
    calendar.script().free = vec![start(4), start(4) + minutes(15)];
    let version = calendar.script().version;
    let mut tx = world.db.begin().await.unwrap();
    let affected = [(block.start..block.end).into()];
    appointments::store::free_calendar(&mut tx, world.provider.uuid(), version, &affected).await.unwrap();
    tx.commit().await.unwrap();
    // The first look asks where and when, the next finds for whom.
    let entry = joined(&world, anything(&world)).await;
    look(&world).await;
    look(&world).await;
    let offer = the_offer(&world).await;
    assert_eq!((offer.state(), offer.waitlist_entry_id), (pb::OfferState::Open, entry.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn extra_hours_are_offered_by_a_running_service() {
    let (world, calendar) = world().await;
    world.serve(&calendar).await;
    let start = ten_o_clock(&world, 0);
    let entry = joined(&world, anything(&world)).await;
    {
        let mut script = calendar.script();
        script.free = vec![start];
        script.version = 2;
    }
    let hours = appointments::domain::Span { start, end: start + minutes(60) };
    world.publish_change(2, hours).await;
    let offer = until("the offer", async || open_offers(&world).await.pop()).await;
    assert_eq!((offer.waitlist_entry_id.as_str(), start_of(&offer)), (entry.id.as_str(), start.timestamp()));
    // And what the calendar takes back is withdrawn.
    calendar.block(BlockCode::Blackout, start);
    world.publish_change(3, hours).await;
    until("the withdrawal", async || {
        let withdrawn = offers(&world, vec![appointments::domain::waitlist::OfferState::Withdrawn]).await;
        (withdrawn.len() == 1).then_some(())
    })
    .await;
    assert_eq!(super::entry(&world, &entry).await.state(), pb::WaitlistEntryState::Waiting);
}

#[tokio::test]
async fn nothing_is_offered_at_night_nor_for_the_next_hour() {
    let (world, _) = world().await;
    let now = world.servers.clock.now();
    let nine_at_night = now.date_naive().and_hms_opt(21, 0, 0).unwrap().and_utc();
    world.servers.advance_to(nine_at_night).await;
    joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    look(&world).await;
    assert!(open_offers(&world).await.is_empty());
    world.servers.advance_to(nine_at_night + minutes(11 * 60 - 1)).await;
    look(&world).await;
    assert!(open_offers(&world).await.is_empty());
    world.servers.advance_to(nine_at_night + minutes(11 * 60)).await;
    look(&world).await;
    world.app.decline(&desk(), id_of(&the_offer(&world).await), None).await.unwrap();

    let soon = world.booked(nine_at_night + minutes(12 * 60 + 30)).await;
    let far = world.booked(nine_at_night + minutes(12 * 60 + 45)).await;
    let (first, second) = (joined(&world, anything(&world)).await, joined(&world, anything(&world)).await);
    world.servers.advance_to(soon.start - minutes(60) + TimeDelta::seconds(1)).await;
    for visit in [soon.id, far.id] {
        world.app.cancel(&desk(), change(visit), true).await.unwrap();
    }
    look(&world).await;
    let starts: Vec<_> = open_offers(&world).await.iter().map(start_of).collect();
    assert!(starts.iter().all(|start| *start >= far.start.timestamp()), "{starts:?}");
    drop((first, second));
}

#[tokio::test]
async fn a_day_of_cancellations_asks_each_patient_one_thing_at_a_time_and_three_a_day() {
    let (world, _) = world().await;
    let entry = joined(&world, anything(&world)).await;
    let mut visits = vec![];
    for n in 0..5 {
        visits.push(world.booked(ten_o_clock(&world, 0) + minutes(15 * n)).await);
    }
    for visit in &visits {
        world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    }
    for asked in 1..=3 {
        look(&world).await;
        let offer = the_offer(&world).await;
        assert_eq!(
            offers(&world, appointments::domain::waitlist::OfferState::ALL.to_vec()).await.len(),
            asked
        );
        // What had to wait for this answer is due then.
        world.app.decline(&desk(), id_of(&offer), None).await.unwrap();
    }
    look(&world).await;
    assert!(open_offers(&world).await.is_empty());
    let other = joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    look(&world).await;
    assert_eq!(the_offer(&world).await.waitlist_entry_id, other.id);
    assert_eq!(super::entry(&world, &entry).await.state(), pb::WaitlistEntryState::Waiting);
}

#[tokio::test]
async fn who_plainly_cannot_come_is_passed_over() {
    let (world, _) = world().await;
    let start = ten_o_clock(&world, 0);
    let (near, busy) = (PatientId::new(), PatientId::new());
    let own = |patient, slot| Slot { patient: Some(patient), ..slot };
    world.take(own(near, world.slot(ten_o_clock(&world, 6)))).await.unwrap();
    let elsewhere = Slot { provider: Some(ProviderId::new()), ..world.slot(start + minutes(60)) };
    let elsewhere = world.take(own(busy, elsewhere)).await.unwrap();
    let at = |start| Move { provider: Some(ProviderId::new()), ..to(elsewhere.id, start) };
    for patient in [near, busy] {
        joined(&world, Join { patient: Some(patient), ..anything(&world) }).await;
    }
    let able = joined(&world, anything(&world)).await;
    let visit = world.booked(start).await;
    world.booked(start - minutes(15)).await;
    world.booked(start + minutes(15)).await;
    world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    // In the room that was freed for it, with another provider.
    world.app.reschedule(&desk(), &at(start + minutes(45))).await.unwrap();
    look(&world).await;
    let offered_to = the_offer(&world).await.waitlist_entry_id;
    assert_ne!(offered_to, able.id, "an hour away is no obstacle");
    world.app.decline(&desk(), id_of(&the_offer(&world).await), None).await.unwrap();
    look(&world).await;
    assert_eq!(the_offer(&world).await.waitlist_entry_id, able.id);
}

#[tokio::test]
async fn a_merged_patients_entry_is_the_survivors_or_joins_it() {
    let (world, _) = world().await;
    let (merged, survivor) = (PatientId::new(), PatientId::new());
    let theirs = |patient, join| Join { patient: Some(patient), ..join };
    let alone = joined(&world, theirs(merged, of_kind(&world, ServiceTypeId::new()))).await;
    let old = joined(&world, theirs(merged, urgent(anything(&world), 4))).await;
    let between = joined(&world, anything(&world)).await;
    let own = joined(&world, theirs(survivor, anything(&world))).await;
    hear_of_merge(&world, merged, survivor).await;
    look(&world).await;
    let alone = super::entry(&world, &alone).await;
    assert_eq!(
        (alone.patient_id.clone(), alone.state()),
        (survivor.to_string(), pb::WaitlistEntryState::Waiting)
    );
    assert_eq!(super::entry(&world, &old).await.state(), pb::WaitlistEntryState::Left);
    let own = super::entry(&world, &own).await;
    assert_eq!((own.priority, own.position), (4, 1), "from the better of both places");
    assert_eq!(super::entry(&world, &between).await.position, 2);
}

//! Several writers, several replicas, and a database that goes away.

use std::fs;
use std::time::Duration;

use prost_types::Timestamp;
use proto::clinic::appointments::v1::AppointmentRescheduled;
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, AddExceptionRequest, AvailabilityView, Blackout, CalendarChanged, CalendarException,
    ExceptionKind, SearchAvailabilityRequest, SearchAvailabilityResponse, blackout,
};
use proto::google::r#type::Interval;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::making::{during, exception, facts, whole_day};
use super::{Suite, World, ZONE};

#[tokio::test(flavor = "multi_thread")]
async fn racing_changes_of_one_calendar_get_versions_without_a_gap() {
    const RACERS: i64 = 12;
    let suite = Suite::start().await;
    let world = suite.world().await;
    // Parts of the shift, which lasts two hours.
    let hours = during(ZONE, &suite.day(3).to_string(), ["09:00", "11:00"]);
    let opening = hours.start_time.expect("a start").seconds;
    let mut racers = JoinSet::new();
    for n in 0..RACERS {
        let (mut calendar, provider_id) = (suite.calendar(), world.provider.id.clone());
        let at = |n| Some(Timestamp { seconds: opening + n * 600, nanos: 0 });
        let part = Interval { start_time: at(n), end_time: at(n + 1) };
        racers.spawn(async move {
            if n % 3 == 0 {
                let span = Some(blackout::Span::Interval(part));
                let blackout = Blackout { name: "Drill".into(), span, ..Default::default() };
                let request = AddBlackoutRequest { blackout: Some(blackout), ..Default::default() };
                calendar.add_blackout(request).await.map(drop)
            } else {
                let (kind, interval) = (ExceptionKind::TimeOff.into(), Some(part));
                let exception = CalendarException { provider_id, kind, interval, ..Default::default() };
                let request = AddExceptionRequest { exception: Some(exception), ..Default::default() };
                calendar.add_exception(request).await.map(drop)
            }
        });
    }
    for result in racers.join_all().await {
        result.expect("nobody is refused for racing");
    }
    let last = world.template.calendar_version + RACERS;
    let told: Vec<CalendarChanged> =
        testkit::collect(&suite.servers.broker().await, "scheduling", last as usize).await;
    assert_eq!(told.iter().map(|e| e.version).collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>());
}

/// Everything that searches answer, pages and day counts, but for when.
async fn answers(suite: &Suite, url: &str, world: &World) -> Vec<SearchAvailabilityResponse> {
    let client = suite.servers.client(url, Role::FrontDesk, "somebody");
    let mut client = AvailabilityServiceClient::new(client);
    let search = SearchAvailabilityRequest { page_size: 3, ..suite.search(world, 1, 9) };
    let counts = SearchAvailabilityRequest { view: AvailabilityView::DayCounts.into(), ..search.clone() };
    let mut answers = vec![client.search_availability(counts).await.expect("day counts").into_inner()];
    let mut next = Some(search);
    while let Some(search) = next {
        let page = client.search_availability(search.clone()).await.expect("a page").into_inner();
        let page_token = page.next_page_token.clone();
        next = (!page_token.is_empty()).then_some(SearchAvailabilityRequest { page_token, ..search });
        answers.push(page);
    }
    answers.iter_mut().for_each(|answer| answer.as_of = None);
    answers
}

/// Waits until both replicas answer alike and as `expected`, for as long as a change may take and an ample time more.
async fn agree(
    what: &str,
    suite: &Suite,
    urls: [&str; 2],
    world: &World,
    slots: usize,
) -> Vec<SearchAvailabilityResponse> {
    const BOUND: Duration = Duration::from_secs(10);
    testkit::until_within(BOUND, what, async || {
        let first = answers(suite, urls[0], world).await;
        let found: usize = first.iter().map(|page| page.slots.len()).sum();
        (found == slots && answers(suite, urls[1], world).await == first).then_some(first)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_on_nothing_answers_as_the_one_that_saw_it_all() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let mortal = CancellationToken::new();
    let (other, ended) = Suite::replica_until(&suite.servers, mortal.clone()).await;
    let urls = [suite.url.as_str(), other.as_str()];
    agree("the template at the other replica", &suite, urls, &world, 9 * 4).await;

    // One event of each kind of change, some told twice or late.
    let at = |ahead: u64, hours| during(ZONE, &suite.day(ahead).to_string(), hours);
    let off = at(2, ["09:00", "10:00"]);
    suite.except(exception("", &world.provider, ExceptionKind::TimeOff, off)).await;
    suite.close("", whole_day(&suite.day(3).to_string())).await;
    let id = suite.book(facts(&world.room, &world.provider.id, at(4, ["09:00", "09:30"]))).await;
    let broker = suite.servers.broker().await;
    let moved = |version, hours| AppointmentRescheduled {
        appointment_id: id.to_string(),
        version,
        appointment: Some(facts(&world.room, &world.provider.id, at(5, hours))),
        ..Default::default()
    };
    for (version, hours) in [(3, ["10:00", "11:00"]), (2, ["09:00", "09:30"]), (3, ["10:00", "11:00"])] {
        testkit::publish(&broker, "appointments", id, version, &moved(version, hours)).await;
    }
    let before = agree("the changes", &suite, urls, &world, 9 * 4 - 2 - 4 - 2).await;

    mortal.cancel();
    ended.await.expect("it stops in order");
    let again = Suite::replica(&suite.servers).await;
    let urls = [suite.url.as_str(), again.as_str()];
    assert_eq!(answers(&suite, &again, &world).await, before, "ready means that all is read");
    suite.book(facts(&world.room, &world.provider.id, at(6, ["09:00", "11:00"]))).await;
    agree("a booking after it", &suite, urls, &world, 9 * 4 - 2 - 4 - 2 - 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_jetstream_loses_no_answer_and_bookings_are_followed_again() {
    let mut suite = Suite::start().await;
    let world = suite.world().await;
    let other = Suite::replica(&suite.servers).await;
    let url = suite.url.clone();
    let at = |suite: &Suite, ahead: u64| during(ZONE, &suite.day(ahead).to_string(), ["09:00", "10:00"]);
    suite.book(facts(&world.room, &world.provider.id, at(&suite, 2))).await;
    let before = agree("the booking", &suite, [&url, &other], &world, 9 * 4 - 2).await;

    suite.servers.nats.stop().await;
    let store = suite.servers.folder().join("nats").join("jetstream");
    for entry in fs::read_dir(store).expect("JetStream's store") {
        fs::remove_dir_all(entry.expect("an entry").path()).expect("removed");
    }
    suite.servers.nats.restart().await.expect("started");
    for url in [&url, &other] {
        assert_eq!(answers(&suite, url, &world).await, before);
    }
    let third = Suite::replica(&suite.servers).await;
    assert_eq!(answers(&suite, &third, &world).await, before);
    suite.book(facts(&world.room, &world.provider.id, at(&suite, 3))).await;
    let client = [url.as_str(), third.as_str()];
    testkit::until("a later booking", async || {
        let found = answers(&suite, client[0], &world).await;
        (found != before).then_some(())
    })
    .await;
    agree("the later booking everywhere", &suite, client, &world, 9 * 4 - 4).await;
    agree("the later booking everywhere", &suite, [&other, &third], &world, 9 * 4 - 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_that_moves_to_a_colleague_frees_the_time_of_the_first_at_every_replica() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    suite.room(&world.clinic, &[]).await;
    let colleague = suite.provider("Dr. Ben Ode").await;
    let other = Suite::replica(&suite.servers).await;
    let template = suite.template(&world.clinic.id, &colleague.id);
    suite.put(&template.weekly_template.expect("a template")).await;
    let urls = [suite.url.as_str(), other.as_str()];
    let nine = during(ZONE, &suite.day(2).to_string(), ["09:00", "09:30"]);
    let id = suite.book(facts(&world.room, &world.provider.id, nine)).await;
    let all = 2 * 9 * 4;
    agree("the booking", &suite, urls, &world, all - 1).await;
    let broker = suite.servers.broker().await;
    // There, back again, and there for longer; the middle one is told last.
    let ten = during(ZONE, &suite.day(2).to_string(), ["10:00", "11:00"]);
    for (version, provider, interval) in
        [(2, &colleague, nine), (4, &colleague, ten), (3, &world.provider, nine)]
    {
        let moved = AppointmentRescheduled {
            appointment_id: id.to_string(),
            version,
            appointment: Some(facts(&world.room, &provider.id, interval)),
            ..Default::default()
        };
        testkit::publish(&broker, "appointments", id, version, &moved).await;
    }
    let found = agree("the move", &suite, urls, &world, all - 2).await;
    let slots = found.iter().flat_map(|page| &page.slots);
    let own = slots.filter(|slot| slot.provider_id == world.provider.id);
    assert_eq!(own.count(), 9 * 4, "all of the first one's time is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_answered_while_the_database_is_away() {
    let mut suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 3);
    suite.until("the slots", &search, |found| found.slots.len() == 4).await;
    suite.servers.postgres.stop().await;
    let found = suite.availability().search_availability(search.clone()).await.unwrap().into_inner();
    assert_eq!(found.slots.len(), 4);
    let status = suite.catalog().create_clinic(super::clinic("Hillside")).await.unwrap_err();
    assert_eq!(super::code_and_reason(&status), (tonic::Code::Unavailable, "DEPENDENCY_DOWN".to_owned()));

    suite.servers.postgres.start_again().await.expect("started");
    testkit::until("the database is used again", || {
        let mut catalog = suite.catalog();
        async move { catalog.create_clinic(super::clinic("Hillside")).await.ok() }
    })
    .await;
}

//! Several writers, several replicas, and a database that goes away.

use chrono::TimeDelta;
use kit::fields::timestamp;
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, AddExceptionRequest, Blackout, CalendarException, blackout,
};
use proto::clinic::scheduling::v1::{CalendarChanged, ExceptionKind};
use proto::google::r#type::Interval;
use tokio::task::JoinSet;

use super::Suite;

#[tokio::test(flavor = "multi_thread")]
async fn racing_changes_of_one_calendar_get_versions_without_a_gap() {
    const RACERS: i64 = 12;
    let suite = Suite::start().await;
    let world = suite.world().await;
    // Within the shift, whether or not clocks are put forward: a blackout beside it concerns nobody.
    let begin = suite.day(3).and_hms_opt(14, 0, 0).expect("a time").and_utc();
    let mut racers = JoinSet::new();
    for n in 0..RACERS {
        let (mut calendar, provider_id) = (suite.calendar(), world.provider.id.clone());
        let start = begin + TimeDelta::minutes(5 * n);
        let part = Interval {
            start_time: Some(timestamp(start)),
            end_time: Some(timestamp(start + TimeDelta::minutes(5))),
        };
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

#[tokio::test(flavor = "multi_thread")]
async fn a_change_through_one_replica_is_seen_in_a_search_at_another() {
    let mut suite = Suite::start().await;
    let other = Suite::replica(&suite.servers).await;
    let world = suite.world().await;
    suite.url = other;
    let search = suite.search(&world, 3, 3);
    suite.until("the other replica's slots", &search, |found| found.slots.len() == 4).await;
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

//! Searches that stay open.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use kit::ids::AppointmentId;
use proto::clinic::appointments::v1::{
    AppointmentCancelled, AppointmentFacts, AppointmentRescheduled, AppointmentState,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::{
    AvailabilityQuery, Clinic, ExceptionKind, Provider, RemoveBlackoutRequest, RemoveExceptionRequest, Room,
    SearchAvailabilityRequest, ServiceType, Slot, UpdateServiceTypeRequest, WatchAvailabilityRequest,
    WatchAvailabilityResponse, blackout,
};
use tonic::{Code, Status, Streaming};

use super::making::{during, exception, facts, open, shift, visit};
use super::{Suite, ZONE, code_and_reason};

/// A Monday, at seven o'clock in New York.
const MONDAY: &str = "2030-03-04T12:00:00Z";
/// Longer than any stream here is open.
const ENOUGH: Duration = Duration::from_secs(300);
/// Most slots that one message adds.
const MESSAGE_SLOTS: usize = 500;

/// Someone with a search open, and the slots that the messages so far come to.
struct Reader {
    stream: Streaming<WatchAvailabilityResponse>,
    slots: BTreeMap<(i64, String, String), Slot>,
}

fn key(slot: &Slot) -> (i64, String, String) {
    let start = slot.interval.and_then(|i| i.start_time).expect("a start").seconds;
    (start, slot.clinic_id.clone(), slot.provider_id.clone())
}

impl Reader {
    async fn try_open(suite: &Suite, who: &str, url: &str, query: AvailabilityQuery) -> Result<Self, Status> {
        let channel = suite.servers.client(url, Role::FrontDesk, who);
        let mut request = tonic::Request::new(WatchAvailabilityRequest { query: Some(query) });
        request.set_timeout(ENOUGH);
        let stream = AvailabilityServiceClient::new(channel).watch_availability(request).await?.into_inner();
        Ok(Self { stream, slots: BTreeMap::new() })
    }

    /// Opens and reads the first answer.
    async fn open(suite: &Suite, url: &str, query: AvailabilityQuery) -> Self {
        let mut reader = Self::try_open(suite, "somebody", url, query).await.expect("a stream");
        reader.next().await;
        reader
    }

    /// Reads and applies the messages up to a complete one.
    async fn next(&mut self) -> Vec<WatchAvailabilityResponse> {
        let mut messages = vec![];
        loop {
            let message = tokio::time::timeout(testkit::SOON, self.stream.message()).await;
            let message = message.expect("a message soon").expect("no error").expect("no end");
            assert!(message.added.len() <= MESSAGE_SLOTS && message.removed.len() <= MESSAGE_SLOTS);
            assert!(message.added.is_sorted_by_key(key) && message.removed.is_sorted_by_key(key));
            for slot in &message.removed {
                assert!(self.slots.remove(&key(slot)).is_some(), "removed but never there: {slot:?}");
            }
            for slot in &message.added {
                assert!(self.slots.insert(key(slot), slot.clone()).is_none(), "added twice: {slot:?}");
            }
            let complete = message.complete;
            messages.push(message);
            if complete {
                return messages;
            }
        }
    }

    /// Reads on until there is what a search finds now.
    async fn follows(&mut self, suite: &Suite, query: &AvailabilityQuery) {
        let found = all(suite, query).await;
        while !self.slots.values().eq(&found) {
            self.next().await;
        }
    }

    /// The status that the stream ends with.
    async fn end(&mut self) -> Status {
        let last = async {
            loop {
                match self.stream.message().await {
                    Ok(message) => drop(message.expect("it ends with an error")),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(testkit::SOON, last).await.expect("an end soon")
    }
}

/// Every page of a search.
async fn all(suite: &Suite, query: &AvailabilityQuery) -> Vec<Slot> {
    let query = Some(query.clone());
    let mut request = SearchAvailabilityRequest { query, page_size: 500, ..Default::default() };
    let mut slots = vec![];
    loop {
        let page = suite.find(&request).await;
        slots.extend(page.slots);
        if page.next_page_token.is_empty() {
            return slots;
        }
        request.page_token = page.next_page_token;
    }
}

/// Two clinics and three providers at each, all day.
struct Large {
    suite: Suite,
    clinics: Vec<(Clinic, Room)>,
    providers: Vec<Provider>,
    service: ServiceType,
}

impl Large {
    async fn start(service: ServiceType) -> Self {
        let suite = Suite::start_at(MONDAY).await;
        let service = suite.service(service).await;
        let (mut clinics, mut providers) = (vec![], vec![]);
        for (name, zone) in [("Lakeside", ZONE), ("Riverside", "America/Chicago")] {
            let clinic = suite.clinic(name, zone).await;
            let room = suite.room(&clinic, &[]).await;
            suite.room(&clinic, &[]).await;
            for n in 0..2 {
                let provider = suite.provider(&format!("Dr. {name} {n}")).await;
                suite.put(&shift(&clinic, &provider, "FREQ=DAILY", ["08:00", "18:00"])).await;
                providers.push(provider);
            }
            clinics.push((clinic, room));
        }
        Self { suite, clinics, providers, service }
    }

    /// From the next day on, so that no time passes in it.
    fn query(&self, last: &str) -> AvailabilityQuery {
        let date = |text: &str| Some(kit::fields::date(text.parse().expect("a date")));
        AvailabilityQuery {
            service_type_id: self.service.id.clone(),
            first_date: date("2030-03-05"),
            last_date: date(last),
            ..Default::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_changes_readers_at_every_replica_have_what_a_search_finds() {
    const CHANGES: usize = 40;
    let large = Large::start(visit("Follow-up", 30)).await;
    let suite = &large.suite;
    let other = Suite::replica(&suite.servers).await;
    let query = large.query("2030-03-18");
    let any = AvailabilityQuery { any_provider: true, ..query.clone() };

    let mut here = Reader::try_open(suite, "somebody", &suite.url, query.clone()).await.unwrap();
    let first = here.next().await;
    let (slots, days, providers) = (20, 14, 4);
    assert_eq!(here.slots.len(), slots * days * providers);
    assert_eq!(first.len(), here.slots.len().div_ceil(MESSAGE_SLOTS), "complete only at the end");
    assert_eq!(first[0].calendar_versions.len(), providers);
    let mut there = Reader::open(suite, &other, query.clone()).await;
    let mut balanced = Reader::open(suite, &other, any.clone()).await;

    // A fixed sequence of arbitrary numbers.
    let mut state = 20_300_304_u64;
    let mut pick = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let broker = suite.servers.broker().await;
    let (mut booked, mut closed, mut off): (Vec<(AppointmentId, i64)>, Vec<String>, Vec<String>) =
        Default::default();
    for n in 0..CHANGES {
        let (clinic, room) = &large.clinics[pick(2)];
        let provider = &large.providers[pick(4)];
        let hour = 8 + pick(9);
        let hours = [format!("{hour:02}:00"), format!("{:02}:30", hour + pick(2))];
        let day = format!("2030-03-{:02}", 5 + pick(14));
        let interval = during(ZONE, &day, hours.each_ref().map(String::as_str));
        let appointment = Some(facts(room, &provider.id, interval));
        match pick(8) {
            0 | 1 => booked.push((suite.book(facts(room, &provider.id, interval)).await, 1)),
            2 if !booked.is_empty() => {
                let at = pick(booked.len());
                let (id, version) = &mut booked[at];
                *version += 1;
                let (appointment_id, version, id) = (id.to_string(), *version, *id);
                let moved =
                    AppointmentRescheduled { appointment_id, version, appointment, ..Default::default() };
                testkit::publish(&broker, "appointments", id, version, &moved).await;
            }
            3 if !booked.is_empty() => {
                let (id, version) = booked.swap_remove(pick(booked.len()));
                let mut appointment = appointment;
                appointment.as_mut().unwrap().state = AppointmentState::Cancelled.into();
                let (appointment_id, version) = (id.to_string(), version + 1);
                let gone =
                    AppointmentCancelled { appointment_id, version, appointment, ..Default::default() };
                testkit::publish(&broker, "appointments", id, version, &gone).await;
            }
            4 => closed.push(suite.close(&clinic.id, blackout::Span::Interval(interval)).await.id),
            5 if !closed.is_empty() => {
                let blackout_id = closed.swap_remove(pick(closed.len()));
                let request = RemoveBlackoutRequest { blackout_id, ..Default::default() };
                suite.calendar().remove_blackout(request).await.unwrap();
            }
            6 => off.push(suite.except(exception("", provider, ExceptionKind::TimeOff, interval)).await.id),
            7 if !off.is_empty() => {
                let exception_id = off.swap_remove(pick(off.len()));
                let request = RemoveExceptionRequest { exception_id, ..Default::default() };
                suite.calendar().remove_exception(request).await.unwrap();
            }
            _ => {
                let opening_hours = open(1..=7, [["08:00", "17:00"], ["09:00", "18:00"]][n % 2]);
                let wish = Clinic { id: clinic.id.clone(), opening_hours, ..Default::default() };
                suite.update_clinic(wish).await;
            }
        }
    }
    // Longer visits are other slots, even those that start as before.
    let longer = ServiceType {
        id: large.service.id.clone(),
        duration_minutes: 45,
        step_minutes: 30,
        ..Default::default()
    };
    let request = UpdateServiceTypeRequest { service_type: Some(longer), ..Default::default() };
    suite.catalog().update_service_type(request).await.unwrap();
    // What was booked before this is seen when this is.
    let fence = during(ZONE, "2030-03-05", ["08:00", "18:00"]);
    let fence = facts(&large.clinics[0].1, &large.providers[0].id, fence);
    let fence = suite.book(fence).await;
    let second =
        AvailabilityQuery { provider_ids: vec![large.providers[0].id.clone()], ..large.query("2030-03-05") };
    testkit::until("the fence", async || all(suite, &second).await.is_empty().then_some(())).await;
    here.follows(suite, &query).await;
    there.follows(suite, &query).await;
    balanced.follows(suite, &any).await;
    assert!(balanced.slots.len() < here.slots.len() && here.slots.len() > MESSAGE_SLOTS);

    // One change more is one message more.
    let version = 2;
    let gone = AppointmentCancelled {
        appointment_id: fence.to_string(),
        version,
        appointment: Some(AppointmentFacts {
            state: AppointmentState::Cancelled.into(),
            ..facts(
                &large.clinics[0].1,
                &large.providers[0].id,
                during(ZONE, "2030-03-05", ["08:00", "18:00"]),
            )
        }),
        ..Default::default()
    };
    testkit::publish(&broker, "appointments", fence, version, &gone).await;
    let freed = there.next().await.remove(0);
    assert!(freed.complete && freed.removed.is_empty() && !freed.added.is_empty());
    let provider = &large.providers[0].id;
    let versions: Vec<_> = freed.calendar_versions.into_iter().collect();
    assert!(versions.contains(&(provider.clone(), suite.calendar_version(provider).await)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_left_open_loses_what_comes_too_near_and_never_reaches_further() {
    let suite = Suite::start_at(MONDAY).await;
    let clinic = suite.clinic("Lakeside", ZONE).await;
    suite.room(&clinic, &[]).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    let service = suite.service(ServiceType { minimum_notice_minutes: 60, ..visit("Follow-up", 30) }).await;
    suite.put(&shift(&clinic, &provider, "FREQ=DAILY", ["09:00", "10:00"])).await;
    // Neither day is named: this day and the six after it.
    let query = AvailabilityQuery { service_type_id: service.id, ..Default::default() };
    let mut reader = Reader::open(&suite, &suite.url, query).await;
    assert_eq!(reader.slots.len(), 7 * 2);
    for (advance, left) in [
        (TimeDelta::minutes(75), 13), // 08:15: nine o'clock is too near
        (TimeDelta::hours(1), 12),
        (TimeDelta::days(1), 10),
        (TimeDelta::days(40), 0),
    ] {
        suite.servers.advance(advance).await;
        while reader.slots.len() > left {
            assert!(reader.next().await.iter().all(|message| message.added.is_empty()));
        }
        assert_eq!(reader.slots.len(), left, "after {advance}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_in_number_and_size_and_end_with_the_server() {
    let large = Large::start(ServiceType { step_minutes: 5, ..visit("Injection", 5) }).await;
    let suite = &large.suite;
    let too_many = Reader::try_open(suite, "greedy", &suite.url, large.query("2030-04-15")).await;
    let refused = |opened: Result<Reader, Status>| code_and_reason(&opened.err().expect("refused"));
    assert_eq!(refused(too_many), (Code::ResourceExhausted, "TOO_MANY_SLOTS".to_owned()));

    let most = large.query("2030-04-14");
    let mut slow = Reader::try_open(suite, "greedy", &suite.url, most.clone()).await.unwrap();
    let mut somebody = Reader::open(suite, &suite.url, most).await;
    assert_eq!(somebody.slots.len(), 4 * 41 * 120);
    let day = large.query("2030-03-05");
    let greedy = async || Reader::try_open(suite, "greedy", &suite.url, day.clone()).await;
    let mut others = vec![];
    for _ in 1..50 {
        others.push(greedy().await.unwrap());
    }
    assert_eq!(refused(greedy().await), (Code::ResourceExhausted, "TOO_MANY_STREAMS".to_owned()));
    others.pop();
    others.push(testkit::until("a closed stream's place", async || greedy().await.ok()).await);

    // Every slot is another one now: more than a connection holds for someone who does not read.
    let longer = ServiceType { id: large.service.id.clone(), duration_minutes: 10, ..Default::default() };
    let request = UpdateServiceTypeRequest { service_type: Some(longer), ..Default::default() };
    suite.catalog().update_service_type(request).await.unwrap();
    somebody.next().await;
    assert_eq!(somebody.slots.len(), 4 * 41 * 119, "who reads goes on");
    others.push(testkit::until("the place of who does not read", async || greedy().await.ok()).await);
    assert_eq!(code_and_reason(&slow.end().await), (Code::Unavailable, "READER_TOO_SLOW".to_owned()));

    suite.servers.stop.cancel();
    for mut reader in others.into_iter().chain([somebody]) {
        assert_eq!(code_and_reason(&reader.end().await), (Code::Unavailable, "WATCH_ENDED".to_owned()));
    }
}

//! Calendars under links, as a calendar program fetches them.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use icalendar::{Calendar, Component as _, Event, EventLike as _};
use kit::ids::{AppointmentId, ProviderId};
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentCancelled, AppointmentState};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::create_calendar_link_request::Subject;
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, AddExceptionRequest, Blackout, CalendarException, CalendarLink,
    CreateCalendarLinkRequest, DateSpan, ExceptionKind, ListCalendarLinksRequest, RevokeCalendarLinkRequest,
    blackout, calendar_link,
};
use proto::google::r#type::Interval;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use tonic::Code;
use uuid::Uuid;

use super::availability::facts;
use super::{Suite, World, bad_fields, code_and_reason};

/// A calendar program.
async fn fetch(url: &str, headers: &[(&'static str, &HeaderValue)]) -> Response {
    // The client wants a TLS provider, used or not.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let headers = headers.iter().map(|(name, value)| (name.parse().expect("a name"), (*value).clone()));
    let request = reqwest::Client::new().get(url).headers(headers.collect::<HeaderMap>());
    request.send().await.expect("the service answers")
}

async fn events(url: &str) -> Vec<Event> {
    let text = fetch(url, &[]).await.text().await.expect("a text");
    let calendar: Calendar = text.parse().expect("a calendar");
    calendar.events().cloned().collect()
}

fn called<'a>(events: &'a [Event], summary: &str) -> Vec<&'a Event> {
    events.iter().filter(|event| event.get_summary() == Some(summary)).collect()
}

/// What an event's line says, such as `America/New_York 20261125T090000`.
fn line(event: &Event, name: &str) -> String {
    let property = &event.properties()[name];
    let zone = property.params().get("TZID").map(|zone| format!("{} ", zone.value()));
    zone.unwrap_or_default() + property.value()
}

impl Suite {
    async fn link(&self, subject: Subject) -> CalendarLink {
        let request = CreateCalendarLinkRequest { subject: Some(subject), ..Default::default() };
        self.calendar().create_calendar_link(request).await.expect("a link").into_inner()
    }

    async fn revoke(&self, link: &CalendarLink) -> CalendarLink {
        let request = RevokeCalendarLinkRequest { calendar_link_id: link.id.clone(), ..Default::default() };
        self.calendar().revoke_calendar_link(request).await.expect("revoked").into_inner()
    }

    async fn list(&self, request: ListCalendarLinksRequest) -> (Vec<CalendarLink>, String) {
        let page = self.calendar().list_calendar_links(request).await.expect("a page").into_inner();
        (page.calendar_links, page.next_page_token)
    }
}

fn provider(world: &World) -> Subject {
    Subject::ProviderId(world.provider.id.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_link_shows_shifts_time_off_and_bookings_and_nothing_of_patients() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let search = suite.search(&world, 3, 3);
    let slots = suite.until("the slots", &search, |found| found.slots.len() == 4).await.slots;
    let off = CalendarException {
        provider_id: world.provider.id.clone(),
        kind: ExceptionKind::TimeOff.into(),
        interval: suite.until("slots", &suite.search(&world, 5, 5), |f| f.slots.len() == 4).await.slots[0]
            .interval,
        cause: 2,
        ..Default::default()
    };
    let request = AddExceptionRequest { exception: Some(off), ..Default::default() };
    suite.calendar().add_exception(request).await.expect("time off");

    let link = suite.link(provider(&world)).await;
    assert!(link.url.starts_with(&format!("{}/calendars/", suite.url)) && link.url.ends_with(".ics"));
    let found = events(&link.url).await;
    let working = called(&found, "Working at Lakeside");
    let on = |day| {
        let start = format!("{} {}T", super::ZONE, suite.day(day).format("%Y%m%d"));
        let of_day = working.iter().filter(move |event| line(event, "DTSTART").starts_with(&start));
        of_day
            .map(|event| (line(event, "DTSTART")[26..].to_owned(), line(event, "DTEND")[26..].to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(on(3), [("090000".to_owned(), "110000".to_owned())]);
    assert_eq!(on(5), [("093000".to_owned(), "110000".to_owned())], "time off is no working time");
    assert_eq!((on(179).len(), on(182).len()), (1, 0), "it reaches 180 days ahead");
    assert_eq!(line(called(&found, "Off")[0], "DTSTART")[26..], *"090000");
    assert!(called(&found, "Booked").is_empty());

    let (broker, id) = (suite.servers.broker().await, AppointmentId::new());
    let booked = AppointmentBooked {
        appointment_id: id.to_string(),
        version: 2,
        appointment: Some(facts(&world, &slots[1], AppointmentState::Booked)),
        ..Default::default()
    };
    testkit::publish(&broker, "appointments", id, 2, &booked).await;
    suite.until("the slot goes", &search, |found| found.slots.len() == 3).await;
    let text = fetch(&link.url, &[]).await.text().await.expect("a text");
    let (before, found) = (found, events(&link.url).await);
    let uids = |events: &[Event]| {
        events.iter().filter_map(|e| Some(e.get_uid()?.to_owned())).collect::<BTreeSet<_>>()
    };
    assert_eq!((uids(&before).len(), uids(&found).len()), (before.len(), found.len()), "each UID once");
    assert_eq!(uids(&found).difference(&uids(&before)).count(), 1, "what was there keeps its UID");
    let taken = called(&found, "Booked");
    assert_eq!(taken.len(), 1);
    assert_eq!((&line(taken[0], "DTSTART")[26..], &line(taken[0], "DTEND")[26..]), ("093000", "100000"));
    let patient = booked.appointment.expect("facts").patient_id;
    for secret in [patient, id.to_string(), world.service.name.clone()] {
        assert!(!text.contains(&secret), "{secret}");
    }

    let cancelled = AppointmentCancelled {
        appointment_id: id.to_string(),
        version: 3,
        appointment: Some(facts(&world, &slots[1], AppointmentState::Cancelled)),
        ..Default::default()
    };
    testkit::publish(&broker, "appointments", id, 3, &cancelled).await;
    suite.until("the slot comes back", &search, |found| found.slots.len() == 4).await;
    assert!(called(&events(&link.url).await, "Booked").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_is_whole_wherever_the_feed_begins_and_leave_from_two_clinics_is_one_event() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let mut clinic = super::clinic("Night Ward");
    let (open, close) = (kit::fields::time_of_day(20 * 60), kit::fields::time_of_day(8 * 60));
    for hours in clinic.clinic.iter_mut().flat_map(|clinic| &mut clinic.opening_hours) {
        (hours.open, hours.close) = (Some(open), Some(close));
    }
    let ward = suite.catalog().create_clinic(clinic).await.expect("a clinic").into_inner();
    let mut nights = suite.template(&ward.id, &world.provider.id);
    let template = nights.weekly_template.as_mut().expect("a template");
    let first = (suite.day(0) - chrono::Days::new(9)).format("%Y%m%d");
    template.rule = format!("DTSTART;TZID={}:{first}T220000\nRRULE:FREQ=DAILY", super::ZONE);
    template.start_time = Some(kit::fields::time_of_day(22 * 60));
    template.end_time = Some(kit::fields::time_of_day(6 * 60));
    suite.calendar().put_weekly_template(nights).await.expect("nights");
    let noon = |ahead| suite.day(ahead).and_hms_opt(12, 0, 0).map(|at| kit::fields::timestamp(at.and_utc()));
    let off = CalendarException {
        provider_id: world.provider.id.clone(),
        kind: ExceptionKind::TimeOff.into(),
        interval: Some(Interval { start_time: noon(20), end_time: noon(30) }),
        ..Default::default()
    };
    let request = AddExceptionRequest { exception: Some(off), ..Default::default() };
    suite.calendar().add_exception(request).await.expect("leave");

    let found = events(&suite.link(provider(&world)).await.url).await;
    let nights = called(&found, "Working at Night Ward");
    assert!(nights.len() > 160, "yesterday to 180 days ahead without the leave: {}", nights.len());
    for night in nights {
        let at = |name| line(night, name)[26..].to_owned();
        assert_eq!((at("DTSTART"), at("DTEND")), ("220000".into(), "060000".into()));
        assert_eq!(night.get_location(), Some("Night Ward"), "its name, for it has no address");
    }
    assert_eq!(called(&found, "Off").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clinics_link_shows_when_it_is_closed_and_says_nothing_again_until_that_changes() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let link = suite.link(Subject::ClinicId(world.clinic.id.clone())).await;
    let empty = fetch(&link.url, &[]).await;
    assert_eq!(empty.headers()["content-type"], "text/calendar; charset=utf-8");
    assert_eq!(empty.headers()["cache-control"], "private, max-age=300");
    assert_eq!(empty.headers()["referrer-policy"], "no-referrer");
    let etag = &empty.headers()["etag"];
    let again = fetch(&link.url, &[("if-none-match", etag)]).await;
    assert_eq!((again.status(), &again.headers()["etag"]), (StatusCode::NOT_MODIFIED, etag));
    assert_eq!(again.text().await.expect("a body"), "");

    let days = DateSpan {
        first_date: Some(kit::fields::date(suite.day(4))),
        last_date: Some(kit::fields::date(suite.day(5))),
    };
    let span = Some(blackout::Span::Days(days));
    let blackout = Blackout { name: "Thanksgiving; bridge".into(), span, ..Default::default() };
    let request = AddBlackoutRequest { blackout: Some(blackout), ..Default::default() };
    suite.calendar().add_blackout(request).await.expect("a blackout");
    let changed = fetch(&link.url, &[("if-none-match", etag)]).await;
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(&changed.headers()["etag"], etag);
    let found = events(&link.url).await;
    let [closed] = &called(&found, "Thanksgiving; bridge")[..] else { panic!("{found:?}") };
    let dates = [suite.day(4), suite.day(6)].map(|day| day.format("%Y%m%d").to_string());
    assert_eq!([line(closed, "DTSTART"), line(closed, "DTEND")], dates, "the end is exclusive");
    assert_eq!(found.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_revoked_forged_or_unknown_is_not_found_and_none_can_be_told_from_the_other() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let link = suite.link(provider(&world)).await;
    let other = suite.link(provider(&world)).await;
    assert_eq!(fetch(&link.url, &[]).await.status(), StatusCode::OK);
    let revoked = suite.revoke(&link).await;
    assert!(revoked.revoke_time.is_some() && revoked.url.is_empty());
    assert_eq!(suite.revoke(&link).await, revoked, "revoking again changes nothing");
    assert_eq!(fetch(&other.url, &[]).await.status(), StatusCode::OK, "the other reader's link works on");

    let forged = URL_SAFE_NO_PAD.encode([Uuid::now_v7().into_bytes(), [7; 16]].concat());
    let forged = format!("{}/calendars/{forged}.ics", suite.url);
    let nothing = format!("{}/calendars/nothing.ics", suite.url);
    let bare = other.url.trim_end_matches(".ics");
    let mut answers = vec![];
    for url in [&link.url, &forged, &nothing, bare] {
        let mut answer = fetch(url, &[]).await;
        answer.headers_mut().remove("date");
        answers.push((answer.status(), answer.headers().clone(), answer.text().await.expect("a text")));
    }
    assert_eq!(answers[0].0, StatusCode::NOT_FOUND);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_link_is_refused_without_the_database_and_a_true_one_waits_for_it() {
    let mut suite = Suite::start().await;
    let world = suite.world().await;
    let link = suite.link(provider(&world)).await;
    suite.servers.postgres.stop().await;
    let forged = format!("{}/calendars/{}.ics", suite.url, URL_SAFE_NO_PAD.encode([7; 32]));
    assert_eq!(fetch(&forged, &[]).await.status(), StatusCode::NOT_FOUND);
    let away = fetch(&link.url, &[]).await;
    assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(away.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_listed_without_their_address_and_work_at_every_replica() {
    let suite = Suite::start().await;
    let world = suite.world().await;
    let request =
        CreateCalendarLinkRequest { request_id: Uuid::now_v7().to_string(), subject: Some(provider(&world)) };
    let first = suite.calendar().create_calendar_link(request.clone()).await.expect("a link").into_inner();
    let again = suite.calendar().create_calendar_link(request).await.expect("the same").into_inner();
    assert_eq!(first, again, "a repeated request gets the same link, with its address");
    let second = suite.link(Subject::ClinicId(world.clinic.id.clone())).await;

    let page = ListCalendarLinksRequest { page_size: 1, ..Default::default() };
    let (one, next) = suite.list(page.clone()).await;
    let (two, last) = suite.list(ListCalendarLinksRequest { page_token: next, ..page }).await;
    let bare = |link: &CalendarLink| CalendarLink { url: String::new(), ..link.clone() };
    assert_eq!([one, two].concat(), [bare(&first), bare(&second)]);
    assert_eq!(last, "");
    let of_clinic = ListCalendarLinksRequest { clinic_id: world.clinic.id.clone(), ..Default::default() };
    assert_eq!(suite.list(of_clinic).await.0, [bare(&second)]);
    let of_provider =
        ListCalendarLinksRequest { provider_id: world.provider.id.clone(), ..Default::default() };
    let (listed, _) = suite.list(of_provider).await;
    assert_eq!(listed[0].subject, Some(calendar_link::Subject::ProviderId(world.provider.id)));

    let replica = Suite::replica(&suite.servers).await;
    assert_eq!(fetch(&first.url.replace(&suite.url, &replica), &[]).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_managers_publish_and_only_what_there_is() {
    let suite = Suite::start().await;
    let create = |subject| CreateCalendarLinkRequest { subject, ..Default::default() };
    let unknown = create(Some(Subject::ProviderId(ProviderId::new().to_string())));
    let mut desk = CalendarServiceClient::new(suite.as_role(Role::FrontDesk));
    let refused = desk.create_calendar_link(unknown.clone()).await.expect_err("a manager's work");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = suite.calendar().create_calendar_link(unknown).await.expect_err("nobody");
    assert_eq!(code_and_reason(&refused), (Code::NotFound, "PROVIDER_NOT_FOUND".into()));
    let refused = suite.calendar().create_calendar_link(create(None)).await.expect_err("nothing");
    assert_eq!(bad_fields(&refused), ["provider_id"]);
    let unknown =
        RevokeCalendarLinkRequest { calendar_link_id: Uuid::now_v7().to_string(), ..Default::default() };
    let refused = suite.calendar().revoke_calendar_link(unknown).await.expect_err("nothing");
    assert_eq!(code_and_reason(&refused), (Code::NotFound, "CALENDAR_LINK_NOT_FOUND".into()));
}

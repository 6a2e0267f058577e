//! Why a start cannot be had, and that nothing speaks against one exactly when a search offers it.

use std::collections::BTreeSet;

use kit::ids::ProviderId;
use proto::clinic::scheduling::v1::{
    AvailabilityQuery, BlockCode, Clinic, ExceptionKind, ExplainAvailabilityRequest,
    ExplainAvailabilityResponse, Provider, SearchAvailabilityRequest, ServiceType, UpdateServiceTypeRequest,
};
use tonic::Code;

use super::making::{at, clocks, during, exception, facts, shift, visit, whole_day};
use super::{Suite, ZONE, bad_fields, code_and_reason};

/// A Monday, at seven o'clock in New York.
const MONDAY: &str = "2030-03-04T12:00:00Z";

/// A provider who works from seven to eleven where doors open at eight, and everything that can stand in the way.
struct Obstacles {
    suite: Suite,
    clinic: Clinic,
    ada: Provider,
    /// Half an hour, and a quarter after it.
    plain: ServiceType,
    /// On the 6th, from 09:15 to 09:45.
    time_off: String,
    /// On the 7th.
    blackout: String,
    /// Ada's, on the 8th from 10:00 to 10:30. On the 9th somebody else's visit takes the only room from 09:00 to 09:30.
    appointment: String,
}

impl Obstacles {
    async fn start() -> Self {
        let suite = Suite::start_at(MONDAY).await;
        let clinic = suite.clinic("Lakeside", ZONE).await;
        let room = suite.room(&clinic, &["scale"]).await;
        let plain = ServiceType { buffer_after_minutes: 15, ..visit("Follow-up", 30) };
        let plain = suite.service(plain).await;
        let ada = suite.provider("Dr. Ada Osei").await;
        let ben = suite.provider("Dr. Ben Ode").await;
        for provider in [&ada, &ben] {
            suite.put(&shift(&clinic, provider, "FREQ=DAILY", ["07:00", "11:00"])).await;
        }
        let off = during(ZONE, "2030-03-06", ["09:15", "09:45"]);
        let time_off = suite.except(exception("", &ada, ExceptionKind::TimeOff, off)).await.id;
        let blackout = suite.close("", whole_day("2030-03-07")).await.id;
        let ten = during(ZONE, "2030-03-08", ["10:00", "10:30"]);
        let appointment = suite.book(facts(&room, &ada.id, ten)).await.to_string();
        let nine = during(ZONE, "2030-03-09", ["09:00", "09:30"]);
        suite.book(facts(&room, &ben.id, nine)).await;
        let made = Self { suite, clinic, ada, plain, time_off, blackout, appointment };
        testkit::until("both bookings", async || {
            let room_taken = made.explain(&made.plain, "2030-03-09 09:00").await;
            let busy = made.explain(&made.plain, "2030-03-08 10:00").await;
            (!room_taken.available && !busy.available).then_some(())
        })
        .await;
        made
    }

    fn question(&self, provider_id: &str, service: &ServiceType, start: &str) -> ExplainAvailabilityRequest {
        ExplainAvailabilityRequest {
            service_type_id: service.id.clone(),
            clinic_id: self.clinic.id.clone(),
            provider_id: provider_id.to_owned(),
            start_time: Some(kit::fields::timestamp(at(ZONE, start))),
        }
    }

    async fn explain(&self, service: &ServiceType, start: &str) -> ExplainAvailabilityResponse {
        self.explain_of(&self.ada.id, service, start).await
    }

    async fn explain_of(
        &self,
        provider_id: &str,
        service: &ServiceType,
        start: &str,
    ) -> ExplainAvailabilityResponse {
        let request = self.question(provider_id, service, start);
        self.suite.availability().explain_availability(request).await.expect("an explanation").into_inner()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_is_named_with_its_words_its_part_of_the_visit_and_its_source() {
    let o = Obstacles::start().await;
    let suite = &o.suite;
    let equipped = ServiceType { room_features: vec!["ecg".into()], ..visit("ECG", 30) };
    let equipped = suite.service(equipped).await;
    let special = suite.service(visit("Imaging", 30)).await;
    let cleo = suite.provider_of("Dr. Cleo Diaz", &[&o.plain]).await;
    suite.put(&shift(&o.clinic, &cleo, "FREQ=DAILY", ["07:00", "11:00"])).await;
    let prepared = ServiceType { minimum_notice_minutes: 1_440, ..visit("Procedure", 30) };
    let prepared = suite.service(prepared).await;
    let near = suite.service(ServiceType { booking_horizon_days: 7, ..visit("Urgent", 30) }).await;
    let gone = suite.service(visit("Old", 30)).await;
    let retired = ServiceType { id: gone.id.clone(), retired: true, ..Default::default() };
    let request = UpdateServiceTypeRequest { service_type: Some(retired), ..Default::default() };
    suite.catalog().update_service_type(request).await.unwrap();

    let (ada, cleo, none) = (o.ada.id.as_str(), cleo.id.as_str(), "");
    for (provider, service, start, code, words, part, source) in [
        (
            ada,
            &o.plain,
            "2030-03-05 11:00",
            BlockCode::OutsideSchedule,
            "No shift at Lakeside",
            "11:00-11:30",
            none,
        ),
        (
            ada,
            &o.plain,
            "2030-03-06 09:00",
            BlockCode::TimeOff,
            "Dr. Ada Osei is off",
            "09:15-09:30",
            &o.time_off,
        ),
        (
            ada,
            &o.plain,
            "2030-03-05 07:30",
            BlockCode::ClinicClosed,
            "Lakeside is closed",
            "07:30-08:00",
            none,
        ),
        (
            ada,
            &o.plain,
            "2030-03-07 09:00",
            BlockCode::Blackout,
            "Closed: no visits",
            "09:00-09:30",
            &o.blackout,
        ),
        (ada, &equipped, "2030-03-05 09:00", BlockCode::NoSuitableRoom, "has all of: ecg", "", none),
        (
            cleo,
            &special,
            "2030-03-05 09:00",
            BlockCode::ServiceNotOffered,
            "does not offer Imaging",
            "",
            none,
        ),
        (ada, &o.plain, "2030-03-05 09:05", BlockCode::OffStep, "starts every 30 minutes", "", none),
        (ada, &prepared, "2030-03-04 09:00", BlockCode::TooSoon, "1440 minutes ahead", "", none),
        (ada, &near, "2030-03-12 09:00", BlockCode::TooFar, "now until 2030-03-11", "", none),
        (ada, &gone, "2030-03-05 09:00", BlockCode::Retired, "takes no new bookings", "", none),
        (ada, &o.plain, "2030-03-08 09:30", BlockCode::Busy, "Held or booked", "10:00-10:15", &o.appointment),
        (
            ada,
            &o.plain,
            "2030-03-09 09:00",
            BlockCode::NoRoomFree,
            "No suitable room is free",
            "09:00-09:30",
            none,
        ),
    ] {
        let answer = o.explain_of(provider, service, start).await;
        let codes: Vec<_> = answer.blocks.iter().map(|b| b.code()).collect();
        assert_eq!((answer.available, codes), (false, vec![code]), "{start}");
        let block = &answer.blocks[0];
        assert!(block.message.contains(words), "{}", block.message);
        let shown = clocks(ZONE, &block.interval).pop().unwrap_or_default();
        let expected = if part.is_empty() { String::new() } else { format!("{} {part}", &start[..10]) };
        assert_eq!((shown, block.source_id.as_str()), (expected, source), "{code:?}");
        assert!(answer.local_start.starts_with(&start.replace(' ', "T")), "{}", answer.local_start);
        assert_eq!(answer.calendar_version, suite.calendar_version(provider).await);
    }

    let several = o.explain(&equipped, "2030-03-07 06:35").await;
    let codes: Vec<_> = several.blocks.iter().map(|b| b.code()).collect();
    let all = [
        BlockCode::OutsideSchedule,
        BlockCode::ClinicClosed,
        BlockCode::Blackout,
        BlockCode::NoSuitableRoom,
        BlockCode::OffStep,
    ];
    assert_eq!(codes, all, "by code");

    let unknown = ProviderId::new().to_string();
    let good = o.question(ada, &o.plain, "2030-03-05 09:00");
    for (request, reason) in [
        (ExplainAvailabilityRequest { provider_id: unknown.clone(), ..good.clone() }, "PROVIDER_NOT_FOUND"),
        (ExplainAvailabilityRequest { clinic_id: unknown.clone(), ..good.clone() }, "CLINIC_NOT_FOUND"),
        (ExplainAvailabilityRequest { service_type_id: unknown, ..good.clone() }, "SERVICE_TYPE_NOT_FOUND"),
    ] {
        let status = suite.availability().explain_availability(request).await.unwrap_err();
        assert_eq!(code_and_reason(&status), (Code::NotFound, reason.to_owned()));
    }
    let ragged = o.question(ada, &o.plain, "2030-03-05 09:01");
    let status = suite.availability().explain_availability(ragged).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["start_time"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_available_exactly_when_a_search_offers_it() {
    let o = Obstacles::start().await;
    let dates = ["2030-03-04", "2030-03-06", "2030-03-07", "2030-03-08", "2030-03-09", "2030-03-10"];
    let mut offered = 0;
    for date in dates {
        let day = Some(kit::fields::date(date.parse().unwrap()));
        let query = AvailabilityQuery {
            service_type_id: o.plain.id.clone(),
            provider_ids: vec![o.ada.id.clone()],
            first_date: day,
            last_date: day,
            ..Default::default()
        };
        let search = SearchAvailabilityRequest { query: Some(query), page_size: 500, ..Default::default() };
        let found = o.suite.find(&search).await;
        let found: BTreeSet<String> = found.slots.into_iter().map(|slot| slot.local_start).collect();
        offered += found.len();
        let mut available = BTreeSet::new();
        for minute in (6 * 60 + 30..12 * 60).step_by(5) {
            let start = format!("{date} {:02}:{:02}", minute / 60, minute % 60);
            let answer = o.explain(&o.plain, &start).await;
            assert_eq!(answer.available, answer.blocks.is_empty());
            if answer.available {
                available.insert(answer.local_start);
            }
        }
        assert_eq!(available, found, "{date}");
    }
    // Six mornings of six, one of them closed; time off takes two, a visit with what comes before it two, a taken room one.
    assert_eq!(offered, 6 * 5 - 2 - 2 - 1);
}

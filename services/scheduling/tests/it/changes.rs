//! What changes of calendars are told: to whom, and for exactly which time.

use kit::fields::time_of_day;
use proto::clinic::scheduling::v1::{
    CalendarChangeCause, CalendarChanged, Clinic, DeleteWeeklyTemplateRequest, ExceptionKind, Provider,
    RemoveBlackoutRequest, RemoveExceptionRequest, Room, ServiceType, UpdateProviderRequest,
    UpdateRoomRequest, UpdateServiceTypeRequest, WeeklyTemplate, blackout,
};

use super::making::{clocks, during, exception, open, shift, visit, whole_day};
use super::{Suite, ZONE};

/// A Monday. Clocks in America change on the Sunday after it, the 10th.
const MONDAY: &str = "2030-03-04T12:00:00Z";
const CHICAGO: &str = "America/Chicago";
const MORNING: [&str; 2] = ["09:00", "11:00"];

/// Without those that never end, and whether there was one.
fn bounded(event: &CalendarChanged) -> (Vec<String>, bool) {
    let all = clocks(ZONE, &event.affected);
    let open = all.last().is_some_and(|last| last.ends_with('-'));
    (all[..all.len() - usize::from(open)].to_vec(), open)
}

/// Every range is on a day of its own, the first on 4 March 2030, at the same time of the clock, and more follows two years later.
fn is_daily(event: &CalendarChanged, hours: &str) {
    let (days, open) = bounded(event);
    assert_eq!(days[0], format!("2030-03-04 {hours}"));
    assert!(days.len() > 730 && days.iter().all(|day| day.ends_with(hours)), "{days:?}");
    assert!(open, "the rule runs on");
    let seconds = |n: usize| event.affected[n].start_time.expect("a start").seconds;
    assert_eq!(seconds(6) - seconds(5), 23 * 3_600, "the clocks went forward before the 10th's shift");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_tells_the_hours_of_each_day_that_it_adds_cuts_and_takes() {
    let suite = Suite::start_at(MONDAY).await;
    let clinic = suite.clinic("Lakeside", ZONE).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    let mut heard = 0;
    suite.told(&mut heard).await;

    let daily = suite.put(&shift(&clinic, &provider, "FREQ=DAILY", MORNING)).await;
    let told = suite.told(&mut heard).await;
    is_daily(&told[0], "09:00-11:00");
    assert_eq!((told[0].cause(), &told[0].source_id), (CalendarChangeCause::WeeklyTemplate, &daily.id));
    assert_eq!((told[0].clinic_id.as_str(), told[0].version), (clinic.id.as_str(), daily.calendar_version));

    let shorter = WeeklyTemplate { end_time: Some(time_of_day(10 * 60 + 30)), ..daily.clone() };
    let shorter = suite.put(&shorter).await;
    is_daily(&suite.told(&mut heard).await[0], "10:30-11:00");

    let few = shift(&clinic, &provider, "FREQ=WEEKLY;BYDAY=MO;COUNT=2", ["10:00", "12:00"]);
    suite.put(&few).await;
    let (days, open) = bounded(&suite.told(&mut heard).await[0]);
    assert_eq!((days, open), (vec!["2030-03-04 10:30-12:00".into(), "2030-03-11 10:30-12:00".into()], false));

    let request = DeleteWeeklyTemplateRequest { weekly_template_id: shorter.id, ..Default::default() };
    suite.calendar().delete_weekly_template(request).await.unwrap();
    let (days, open) = bounded(&suite.told(&mut heard).await[0]);
    assert_eq!(days[..2], ["2030-03-04 09:00-10:00", "2030-03-05 09:00-10:30"]);
    assert!(open && days.len() > 730);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_tells_the_working_time_it_adds_or_takes_and_no_other() {
    let suite = Suite::start_at(MONDAY).await;
    let clinic = suite.clinic("Lakeside", ZONE).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    suite.put(&shift(&clinic, &provider, "FREQ=DAILY", MORNING)).await;
    let mut heard = 0;
    suite.told(&mut heard).await;
    let (here, anywhere) = (clinic.id.as_str(), "");
    let (off, extra) = (ExceptionKind::TimeOff, ExceptionKind::ExtraHours);
    let mut added = vec![];
    for (clinic_id, kind, day, hours, affected) in [
        (here, off, "2030-03-11", ["10:00", "12:00"], &["2030-03-11 10:00-11:00"][..]),
        (anywhere, off, "2030-03-10", ["00:00", "23:00"], &["2030-03-10 09:00-11:00"]),
        (here, off, "2030-03-11", ["14:00", "16:00"], &[]),
        (
            here,
            extra,
            "2030-03-12",
            ["07:00", "20:00"],
            &["2030-03-12 08:00-09:00", "2030-03-12 11:00-18:00"],
        ),
        // All of it is in time off, which wins.
        (here, extra, "2030-03-11", ["10:30", "11:30"], &[]),
    ] {
        let wish = exception(clinic_id, &provider, kind, during(ZONE, day, hours));
        let made = suite.except(wish).await;
        let told = suite.told(&mut heard).await;
        assert_eq!(clocks(ZONE, &told[0].affected), affected, "{kind:?} {day} {hours:?}");
        let source = (told[0].version, told[0].source_id.as_str(), told[0].clinic_id.as_str());
        assert_eq!(source, (made.calendar_version, made.id.as_str(), clinic_id));
        added.push(made);
    }
    // When the time off is gone, what the extra hours and the shift have in it comes back, once.
    let request = RemoveExceptionRequest { exception_id: added[0].id.clone(), ..Default::default() };
    suite.calendar().remove_exception(request).await.unwrap();
    assert_eq!(clocks(ZONE, &suite.told(&mut heard).await[0].affected), ["2030-03-11 10:00-11:30"]);
}

/// Three clinics in two zones and who works there.
struct Region {
    suite: Suite,
    lakeside: Clinic,
    room: Room,
    /// At Lakeside on Mondays and Tuesdays.
    ada: Provider,
    /// At Lakeside on Tuesdays.
    ben: Provider,
    /// At Hillside on Mondays; gives only one kind of visit.
    cleo: Provider,
    /// At Riverside, in Chicago, on Mondays.
    dan: Provider,
    /// What everybody gives.
    visit: ServiceType,
    /// What Cleo does not give.
    special: ServiceType,
    heard: usize,
}

impl Region {
    async fn start() -> Self {
        let suite = Suite::start_at(MONDAY).await;
        let lakeside = suite.clinic("Lakeside", ZONE).await;
        let hillside = suite.clinic("Hillside", ZONE).await;
        let riverside = suite.clinic("Riverside", CHICAGO).await;
        let room = suite.room(&lakeside, &["scale"]).await;
        let (visit, special) =
            (suite.service(visit("Follow-up", 30)).await, suite.service(visit("Imaging", 30)).await);
        let ada = suite.provider("Ada").await;
        let ben = suite.provider("Ben").await;
        let cleo = suite.provider_of("Cleo", &[&visit]).await;
        let dan = suite.provider("Dan").await;
        for (clinic, provider, days) in [
            (&lakeside, &ada, "MO,TU"),
            (&lakeside, &ben, "TU"),
            (&hillside, &cleo, "MO"),
            (&riverside, &dan, "MO"),
        ] {
            suite.put(&shift(clinic, provider, &format!("FREQ=WEEKLY;BYDAY={days}"), MORNING)).await;
        }
        let mut region = Self { suite, lakeside, room, ada, ben, cleo, dan, visit, special, heard: 0 };
        region.suite.told(&mut region.heard).await;
        region
    }

    /// Who was told of a change since, by first name, with what of it is affected on clocks of New York.
    async fn told(&mut self) -> Vec<(&str, CalendarChangeCause, Vec<String>)> {
        let told = self.suite.told(&mut self.heard).await;
        let all = [&self.ada, &self.ben, &self.cleo, &self.dan];
        let name = |id: &str| all.iter().find(|p| p.id == id).map_or("?", |p| p.name.as_str());
        let mut told: Vec<_> =
            told.iter().map(|e| (name(&e.provider_id), e.cause(), clocks(ZONE, &e.affected))).collect();
        told.sort_by_key(|(name, ..)| *name);
        told
    }

    /// Who was told of a change since that holds from now on.
    async fn told_from_now_on(&mut self) -> Vec<&str> {
        let told = self.told().await;
        assert!(
            told.iter().all(|(_, _, affected)| affected.len() == 1
                && affected[0].starts_with("2030-03-04 07:")
                && affected[0].ends_with('-')),
            "{told:?}"
        );
        told.into_iter().map(|(name, ..)| name).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_and_blackouts_are_told_to_those_who_lose_time_and_to_nobody_else() {
    let mut region = Region::start().await;
    let clinic = &region.lakeside;
    let shorter = [open([1], ["08:00", "10:00"]), open(2..=7, ["08:00", "18:00"])].concat();
    let wish = Clinic { id: clinic.id.clone(), opening_hours: shorter, ..Default::default() };
    region.suite.update_clinic(wish.clone()).await;
    let told = region.told().await;
    let [(name, cause, mondays)] = &told[..] else { panic!("only who works on Mondays: {told:?}") };
    assert_eq!((*name, *cause), ("Ada", CalendarChangeCause::Clinic));
    assert_eq!(mondays[..2], ["2030-03-04 10:00-11:00", "2030-03-11 10:00-11:00"]);
    let (open_end, mondays) = mondays.split_last().unwrap();
    assert!(mondays.len() > 104 && mondays.iter().all(|day| day.ends_with("10:00-11:00")), "{mondays:?}");
    assert!(open_end.ends_with('-'), "a week's hours come back for ever");

    // More hours in which nobody works, and another name, are told to nobody.
    let longer = [wish.opening_hours[..1].to_vec(), open(2..=7, ["07:00", "19:00"])].concat();
    let wish = Clinic { opening_hours: longer, name: "Lakeview".into(), ..wish };
    region.suite.update_clinic(wish).await;
    assert_eq!(region.told().await, []);

    // A day of the whole network, on each clinic's own clock: Chicago's nine is New York's ten.
    let blackout = region.suite.close("", whole_day("2030-03-11")).await;
    let cause = CalendarChangeCause::Blackout;
    let day = |hours: &str| vec![format!("2030-03-11 {hours}")];
    let lost = [
        ("Ada", cause, day("09:00-10:00")),
        ("Cleo", cause, day("09:00-11:00")),
        ("Dan", cause, day("10:00-12:00")),
    ];
    assert_eq!(region.told().await, lost);
    let request = RemoveBlackoutRequest { blackout_id: blackout.id, ..Default::default() };
    region.suite.calendar().remove_blackout(request).await.unwrap();
    assert_eq!(region.told().await, lost, "what was lost comes back");

    // Hours of one clinic; and the same instants everywhere.
    let hour = during(ZONE, "2030-03-12", ["10:30", "14:00"]);
    let id = region.lakeside.id.clone();
    region.suite.close(&id, blackout::Span::Interval(hour)).await;
    let tuesday = vec!["2030-03-12 10:30-11:00".to_owned()];
    assert_eq!(region.told().await, [("Ada", cause, tuesday.clone()), ("Ben", cause, tuesday)]);
    let hour = during(ZONE, "2030-03-18", ["10:30", "11:30"]);
    region.suite.close("", blackout::Span::Interval(hour)).await;
    let monday = |hours: &str| vec![format!("2030-03-18 {hours}")];
    let lost = [("Cleo", cause, monday("10:30-11:00")), ("Dan", cause, monday("10:30-11:30"))];
    assert_eq!(region.told().await, lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalog_changes_is_told_to_those_whose_visits_it_concerns() {
    let mut region = Region::start().await;
    let room = |room: Room| UpdateRoomRequest { room: Some(room), ..Default::default() };
    let id = region.room.id.clone();
    let renamed = Room { id: id.clone(), name: "Blue".into(), ..Default::default() };
    region.suite.catalog().update_room(room(renamed)).await.unwrap();
    assert_eq!(region.told().await, []);
    let equipped = Room { id: id.clone(), features: vec!["ecg".into()], ..Default::default() };
    region.suite.catalog().update_room(room(equipped)).await.unwrap();
    assert_eq!(region.told_from_now_on().await, ["Ada", "Ben"]);
    let retired = Room { id, retired: true, ..Default::default() };
    region.suite.catalog().update_room(room(retired)).await.unwrap();
    assert_eq!(region.told_from_now_on().await, ["Ada", "Ben"]);

    let service = |service| UpdateServiceTypeRequest { service_type: Some(service), ..Default::default() };
    let special = ServiceType { id: region.special.id.clone(), ..Default::default() };
    let renamed = ServiceType { name: "X-ray".into(), ..special.clone() };
    region.suite.catalog().update_service_type(service(renamed)).await.unwrap();
    assert_eq!(region.told().await, []);
    let longer = ServiceType { duration_minutes: 45, ..special };
    region.suite.catalog().update_service_type(service(longer)).await.unwrap();
    assert_eq!(region.told_from_now_on().await, ["Ada", "Ben", "Dan"], "Cleo does not give it");
    let longer = ServiceType { id: region.visit.id.clone(), duration_minutes: 45, ..Default::default() };
    region.suite.catalog().update_service_type(service(longer)).await.unwrap();
    assert_eq!(region.told_from_now_on().await, ["Ada", "Ben", "Cleo", "Dan"]);

    let provider = |provider| UpdateProviderRequest { provider: Some(provider), ..Default::default() };
    let dan = Provider { id: region.dan.id.clone(), ..Default::default() };
    let renamed = Provider { name: "Dan".into(), specialty: "Cardiology".into(), ..dan.clone() };
    region.suite.catalog().update_provider(provider(renamed)).await.unwrap();
    assert_eq!(region.told().await, []);
    let retired = Provider { retired: true, ..dan };
    let retired = region.suite.catalog().update_provider(provider(retired)).await.unwrap().into_inner();
    assert_eq!(region.told_from_now_on().await, ["Dan"]);
    assert_eq!(retired.calendar_version, region.suite.calendar_version(&retired.id).await);
    let closed = Clinic { id: region.lakeside.id.clone(), retired: true, ..Default::default() };
    region.suite.update_clinic(closed).await;
    assert_eq!(region.told_from_now_on().await, ["Ada", "Ben"]);
}

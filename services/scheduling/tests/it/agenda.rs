//! A provider's calendar as staff read it.

use kit::ids::{ClinicId, ProviderId};
use proto::clinic::scheduling::v1::{
    CalendarEntry, CalendarEntryKind as Kind, Clinic, DateSpan, DeleteWeeklyTemplateRequest, ExceptionKind,
    GetProviderCalendarRequest, ProviderCalendar, RemoveExceptionRequest, blackout,
};
use tonic::{Code, Status};

use super::making::{during, exception, facts, shift, visit};
use super::{Suite, ZONE, bad_fields, code_and_reason};

/// The Friday before the clocks go forward in America.
const FRIDAY: &str = "2030-03-08T12:00:00Z";
const CHICAGO: &str = "America/Chicago";

fn days(first: &str, last: &str) -> DateSpan {
    let date = |text: &str| Some(kit::fields::date(text.parse().expect("a date")));
    DateSpan { first_date: date(first), last_date: date(last) }
}

impl Suite {
    async fn agenda(
        &self,
        provider_id: &str,
        clinic_id: &str,
        days: DateSpan,
    ) -> Result<ProviderCalendar, Status> {
        let (provider_id, clinic_id) = (provider_id.to_owned(), clinic_id.to_owned());
        let request = GetProviderCalendarRequest { provider_id, clinic_id, days: Some(days) };
        Ok(self.calendar().get_provider_calendar(request).await?.into_inner())
    }
}

/// What an entry says: kind, start as shown, minutes, source.
fn said(entry: &CalendarEntry) -> (Kind, &str, i64, &str) {
    let interval = entry.interval.expect("an interval");
    let [start, end] = [interval.start_time, interval.end_time].map(|t| t.expect("an end").seconds);
    (entry.kind(), entry.local_start.as_str(), (end - start) / 60, entry.source_id.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_shows_every_rule_with_its_source_and_what_is_left() {
    let suite = Suite::start_at(FRIDAY).await;
    let lakeside = suite.clinic("Lakeside", ZONE).await;
    let riverside = suite.clinic("Riverside", CHICAGO).await;
    let room = suite.room(&lakeside, &[]).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    suite.service(visit("Follow-up", 30)).await;
    let mornings = suite.put(&shift(&lakeside, &provider, "FREQ=DAILY", ["09:00", "11:00"])).await;
    let afternoons = suite.put(&shift(&riverside, &provider, "FREQ=DAILY", ["14:00", "15:00"])).await;
    let hours = |hours| during(ZONE, "2030-03-12", hours);
    let off = exception("", &provider, ExceptionKind::TimeOff, hours(["10:30", "11:30"]));
    let off = suite.except(off).await;
    let extra = exception(&lakeside.id, &provider, ExceptionKind::ExtraHours, hours(["11:00", "12:00"]));
    let extra = suite.except(extra).await;
    let closed = suite.close(&lakeside.id, blackout::Span::Interval(hours(["09:00", "09:15"]))).await;
    let appointment = suite.book(facts(&room, &provider.id, hours(["10:00", "10:15"]))).await.to_string();

    let day = || days("2030-03-12", "2030-03-12");
    let shown = testkit::until("the booking", async || {
        let shown = suite.agenda(&provider.id, "", day()).await.expect("a calendar");
        shown.entries.iter().any(|e| e.kind() == Kind::Busy).then_some(shown)
    })
    .await;
    assert_eq!(shown.calendar_version, suite.calendar_version(&provider.id).await);
    let at = |time: &str| format!("2030-03-12T{time}:00-04:00");
    let [nine, quarter, ten, past_ten, eleven, half_past_eleven] =
        ["09:00", "09:15", "10:00", "10:15", "11:00", "11:30"].map(at);
    let here = [
        (Kind::Shift, nine.as_str(), 120, mornings.id.as_str()),
        (Kind::Blackout, &nine, 15, &closed.id),
        (Kind::Free, &quarter, 45, ""),
        (Kind::Busy, &ten, 15, &appointment),
        (Kind::Free, &past_ten, 15, ""),
        // Time off at every clinic has no clock to be shown on.
        (Kind::TimeOff, "", 60, &off.id),
        (Kind::ExtraHours, &eleven, 60, &extra.id),
        (Kind::Free, &half_past_eleven, 30, ""),
    ];
    let there = "2030-03-12T14:00:00-05:00";
    let there = [(Kind::Shift, there, 60, afternoons.id.as_str()), (Kind::Free, there, 60, "")];
    assert_eq!(shown.entries.iter().map(said).collect::<Vec<_>>(), [&here[..], &there[..]].concat());
    let at_lakeside = suite.agenda(&provider.id, &lakeside.id, day()).await.unwrap();
    assert_eq!(at_lakeside.entries.iter().map(said).collect::<Vec<_>>(), here);
    let somewhere: Vec<_> = at_lakeside.entries.iter().map(|e| e.clinic_id.is_empty()).collect();
    assert_eq!(somewhere, [false, false, false, false, false, true, false, false]);

    // A visit stays in the calendar when the shift that it was booked in is gone.
    for id in [mornings.id, afternoons.id] {
        let request = DeleteWeeklyTemplateRequest { weekly_template_id: id, ..Default::default() };
        suite.calendar().delete_weekly_template(request).await.unwrap();
    }
    let request = RemoveExceptionRequest { exception_id: extra.id, ..Default::default() };
    suite.calendar().remove_exception(request).await.unwrap();
    let left = suite.agenda(&provider.id, "", day()).await.unwrap().entries;
    let kinds: Vec<_> = left.iter().map(|e| e.kind()).collect();
    assert_eq!(kinds, [Kind::Blackout, Kind::Busy, Kind::TimeOff]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nights_are_cut_to_the_days_asked_for_and_as_long_as_they_really_are() {
    let suite = Suite::start_at(FRIDAY).await;
    let clinic = suite.clinic("Lakeside", ZONE).await;
    let always = Clinic {
        id: clinic.id.clone(),
        opening_hours: super::making::open(1..=7, ["00:00", "24:00"]),
        ..Default::default()
    };
    suite.update_clinic(always).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    let nights = suite.put(&shift(&clinic, &provider, "FREQ=DAILY", ["22:00", "06:00"])).await.id;
    let nights = nights.as_str();
    // The night before the 10th is an hour short.
    let sunday = suite.agenda(&provider.id, "", days("2030-03-10", "2030-03-10")).await.unwrap().entries;
    let shifts: Vec<_> = sunday.iter().map(said).filter(|e| e.0 == Kind::Shift).collect();
    let expected = [
        (Kind::Shift, "2030-03-10T00:00:00-05:00", 300, nights),
        (Kind::Shift, "2030-03-10T22:00:00-04:00", 120, nights),
    ];
    assert_eq!(shifts, expected);
    let free: Vec<_> = sunday.iter().map(said).filter(|e| e.0 == Kind::Free).map(|e| (e.1, e.2)).collect();
    assert_eq!(free, expected.map(|e| (e.1, e.2)));
    let both = suite.agenda(&provider.id, "", days("2030-03-09", "2030-03-10")).await.unwrap().entries;
    let whole: Vec<_> = both.iter().map(said).filter(|e| e.0 == Kind::Shift).map(|e| (e.1, e.2)).collect();
    let saturday = [("2030-03-09T00:00:00-05:00", 360), ("2030-03-09T22:00:00-05:00", 420)];
    assert_eq!(whole, [saturday[0], saturday[1], ("2030-03-10T22:00:00-04:00", 120)]);

    assert!(suite.agenda(&provider.id, "", days("2030-03-01", "2030-05-01")).await.is_ok(), "62 days");
    let long = suite.agenda(&provider.id, "", days("2030-03-01", "2030-05-02")).await.unwrap_err();
    assert_eq!(bad_fields(&long), ["days"]);
    let nobody = ProviderId::new().to_string();
    let nobody = suite.agenda(&nobody, "", days("2030-03-01", "2030-03-01")).await.unwrap_err();
    assert_eq!(code_and_reason(&nobody), (Code::NotFound, "PROVIDER_NOT_FOUND".to_owned()));
    let nowhere = ClinicId::new().to_string();
    let nowhere = suite.agenda(&provider.id, &nowhere, days("2030-03-01", "2030-03-01")).await.unwrap_err();
    assert_eq!(code_and_reason(&nowhere), (Code::NotFound, "CLINIC_NOT_FOUND".to_owned()));
}

//! What files come to, read as their programs write them.

use chrono_tz::Tz;
use uuid::Uuid;

use super::event::When;
use super::plan::{Options, Plan, Skipped, Target, plan};

const GOOGLE: &str = include_str!("../../tests/fixtures/google.ics");
const OUTLOOK: &str = include_str!("../../tests/fixtures/outlook.ics");
const HOLIDAYS: &str = include_str!("../../tests/fixtures/apple-holidays.ics");

const PROVIDER: Target = Target::Provider(Uuid::from_u128(1), None);
const CLINIC: Target = Target::Clinic(Uuid::from_u128(2));

fn options(target: Target, from: &str, until: &str) -> Options {
    Options {
        target,
        zone: Some(Tz::America__New_York),
        from: from.parse().unwrap(),
        until: until.parse().unwrap(),
        include_free: false,
    }
}

/// A calendar around lines of events.
fn calendar(events: &str) -> String {
    format!("BEGIN:VCALENDAR\n{events}\nEND:VCALENDAR\n")
}

/// One event of the autumn of 2026, for a provider.
fn event(lines: &str) -> anyhow::Result<Plan> {
    let text = calendar(&format!("BEGIN:VEVENT\nUID:one\nSUMMARY:One\n{lines}\nEND:VEVENT"));
    plan(text.as_bytes(), &options(PROVIDER, "2026-09-01", "2026-12-31"))
}

fn complaint(lines: &str) -> String {
    format!("{:#}", event(lines).unwrap_err())
}

fn shown(plan: &Plan) -> Vec<String> {
    let time = |when: When| match when {
        When::Days(first, last) => format!("{first}..{last}"),
        When::Exact(start, end) => format!("{}..{}", start.format("%m-%d %H:%M"), end.format("%m-%d %H:%M")),
    };
    plan.planned.iter().map(|p| format!("{} {}", time(p.when), p.name)).collect()
}

fn times(lines: &str) -> Vec<String> {
    shown(&event(lines).unwrap()).into_iter().map(|line| line.replace(" One", "")).collect()
}

#[test]
fn google_a_weekly_event_keeps_nine_oclock_and_its_changed_days() {
    let plan = plan(GOOGLE.as_bytes(), &options(PROVIDER, "2026-10-05", "2027-01-31")).unwrap();
    assert_eq!(
        shown(&plan),
        [
            "10-05 13:00..10-05 13:30 Case conference",
            "10-19 13:00..10-19 13:30 Case conference",
            "10-26 13:00..10-26 13:30 Case conference",
            "11-02 14:00..11-02 14:30 Case conference",
            "11-05 18:00..11-05 18:50 Call with the lab",
            "11-10 15:30..11-10 16:00 Case conference (moved)",
            "11-23 14:00..11-23 14:30 Case conference",
            "12-24 05:00..12-28 05:00 Leave",
        ]
    );
    assert_eq!(plan.skipped, Skipped { free: 1, cancelled: 1, ..Default::default() });
    assert_eq!(plan.rounded, 1);
}

#[test]
fn outlook_windows_zones_are_read_from_their_own_rules_on_both_sides_of_both_changes() {
    let weeks = |from, until| {
        let plan = plan(OUTLOOK.as_bytes(), &options(PROVIDER, from, until)).unwrap();
        (shown(&plan), plan.skipped)
    };
    let (spring, skipped) = weeks("2026-03-01", "2026-03-14");
    assert_eq!(
        spring,
        ["03-03 14:00..03-03 15:00 Teaching round", "03-10 13:00..03-10 14:00 Teaching round"]
    );
    assert_eq!(skipped, Skipped { free: 1, outside: 1, ..Default::default() });
    let (autumn, _) = weeks("2026-10-26", "2026-11-05");
    assert_eq!(
        autumn,
        [
            "10-27 13:00..10-27 14:00 Teaching round",
            "11-03 14:00..11-03 15:00 Teaching round",
            "11-04 13:00..11-04 13:45 Call with Pune",
        ]
    );
}

#[test]
fn apple_holidays_are_whole_days_and_count_only_when_free_events_do() {
    let mut options = options(CLINIC, "2026-11-22", "2027-12-31");
    let none = plan(HOLIDAYS.as_bytes(), &options).unwrap();
    assert_eq!((none.planned.len(), none.skipped.free), (0, 4));
    options.include_free = true;
    options.zone = None;
    let plan = plan(HOLIDAYS.as_bytes(), &options).unwrap();
    assert_eq!(
        shown(&plan),
        [
            "2026-11-26..2026-11-26 Thanksgiving",
            "2027-01-01..2027-01-01 New Year’s Day",
            "2027-11-25..2027-11-25 Thanksgiving"
        ]
    );
    assert_eq!(plan.skipped, Skipped { outside: 2, ..Default::default() });
}

#[test]
fn ids_are_the_same_again_and_differ_by_target_and_by_time() {
    let ids = |text: &str, target| {
        let plan = plan(text.as_bytes(), &options(target, "2026-10-05", "2027-01-31")).unwrap();
        plan.planned.iter().map(|p| p.id).collect::<Vec<_>>()
    };
    let first = ids(GOOGLE, PROVIDER);
    assert_eq!(first, ids(GOOGLE, PROVIDER));
    assert_eq!(first, ids(&GOOGLE.replace("SUMMARY:Leave", "SUMMARY:Away"), PROVIDER));
    let longer = ids(&GOOGLE.replace("DTEND;VALUE=DATE:20261228", "DTEND;VALUE=DATE:20261229"), PROVIDER);
    assert_eq!((&first[..7], first[7] == longer[7]), (&longer[..7], false));
    let elsewhere = ids(GOOGLE, Target::Provider(Uuid::from_u128(1), Some(Uuid::from_u128(2))));
    assert!(first.iter().all(|id| !elsewhere.contains(id)));
    // What earlier releases added must be known again.
    assert_eq!(first[0].to_string(), "9358fd55-4093-5cf3-9686-a7bef1473d77");
}

#[test]
fn half_hour_zones_and_half_hour_changes_are_exact() {
    assert_eq!(
        times("DTSTART;TZID=Asia/Kolkata:20261105T090000\nDTEND;TZID=Asia/Kolkata:20261105T100000"),
        ["11-05 03:30..11-05 04:30"]
    );
    assert_eq!(
        times(
            "DTSTART;TZID=Australia/Lord_Howe:20260926T090000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=2;BYDAY=SA,SU"
        ),
        ["09-25 22:30..09-25 23:30", "09-26 22:30..09-26 23:30"]
    );
    assert_eq!(
        times("DTSTART;TZID=Australia/Lord_Howe:20261003T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=2"),
        ["10-02 22:30..10-02 23:30", "10-03 22:00..10-03 23:00"]
    );
}

#[test]
fn floating_times_and_whole_days_are_on_the_clock_that_was_named() {
    let floating = "DTSTART:20261105T090000\nDTEND:20261105T100000";
    let whole = "DTSTART;VALUE=DATE:20261101";
    assert_eq!(times(floating), ["11-05 14:00..11-05 15:00"]);
    // The day of the change is 25 hours long.
    assert_eq!(times(whole), ["11-01 04:00..11-02 05:00"]);
    for lines in [floating, whole] {
        let text = calendar(&format!("BEGIN:VEVENT\n{lines}\nEND:VEVENT"));
        let unknown = Options { zone: None, ..options(PROVIDER, "2026-09-01", "2026-12-31") };
        let error = format!("{:#}", plan(text.as_bytes(), &unknown).unwrap_err());
        assert!(error.contains("--time-zone") && error.contains("line 2"), "{error}");
    }
}

#[test]
fn dates_are_added_and_removed_by_time_by_day_and_in_other_zones() {
    let weekly = "DTSTART;TZID=America/New_York:20261026T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=6\n";
    assert_eq!(
        times(&format!(
            "{weekly}EXDATE:20261027T130000Z,20261029T130000Z\nEXDATE;VALUE=DATE:20261028\n\
             RDATE;TZID=America/New_York:20261101T170000"
        )),
        [
            "10-26 13:00..10-26 14:00",
            "10-30 13:00..10-30 14:00",
            "10-31 13:00..10-31 14:00",
            "11-01 22:00..11-01 23:00"
        ]
    );
}

#[test]
fn the_length_is_elapsed_by_an_end_and_by_the_clock_by_a_duration_in_days() {
    let overnight = "DTSTART;TZID=America/New_York:20261031T220000\n";
    assert_eq!(
        times(&format!("{overnight}DTEND;TZID=America/New_York:20261101T060000")),
        ["11-01 02:00..11-01 11:00"]
    );
    assert_eq!(times(&format!("{overnight}DURATION:P1D")), ["11-01 02:00..11-02 03:00"]);
    assert_eq!(times(&format!("{overnight}DURATION:PT24H")), ["11-01 02:00..11-02 02:00"]);
    assert_eq!(event(overnight).unwrap().skipped.empty, 1);
}

#[test]
fn an_event_that_reaches_into_the_dates_counts_and_a_long_one_comes_in_pieces() {
    let into = "DTSTART;VALUE=DATE:20260825\nDTEND;VALUE=DATE:20260902";
    assert_eq!(times(into), ["08-25 04:00..09-02 04:00"]);
    assert_eq!(event("DTSTART;VALUE=DATE:20260825\nDTEND;VALUE=DATE:20260901").unwrap().skipped.outside, 1);
    let text =
        calendar("BEGIN:VEVENT\nUID:a\nDTSTART;VALUE=DATE:20260101\nDTEND;VALUE=DATE:20290101\nEND:VEVENT");
    let long = plan(text.as_bytes(), &options(CLINIC, "2026-06-01", "2027-06-01")).unwrap();
    assert_eq!(shown(&long), ["2026-01-01..2027-01-01 Closed", "2027-01-02..2028-01-02 Closed"]);
}

#[test]
fn names_are_one_line_of_at_most_a_hundred_characters() {
    let named = |summary: &str| {
        let text = calendar(&format!(
            "BEGIN:VEVENT\nUID:a\nSUMMARY:{summary}\nDTSTART:20261105T090000Z\nDURATION:PT5M\nEND:VEVENT"
        ));
        plan(text.as_bytes(), &options(CLINIC, "2026-09-01", "2026-12-31")).unwrap().planned.remove(0).name
    };
    assert_eq!(named("  Staff\\n\\n meeting\\, all "), "Staff meeting, all");
    assert_eq!(named(""), "Closed");
    assert_eq!(named(&"é".repeat(150)).chars().count(), 100);
}

#[test]
fn what_cannot_be_imported_names_the_event_and_the_reason() {
    let start = "DTSTART:20261105T090000Z\n";
    for (lines, words) in [
        ("SEQUENCE:1".to_owned(), &["no DTSTART"][..]),
        ("DTSTART:tomorrow".to_owned(), &["line 5", "tomorrow"]),
        (format!("{start}DTEND:20261105T080000Z"), &["ends before"]),
        (format!("{start}DTEND;VALUE=DATE:20261106"), &["DTEND"]),
        (format!("{start}DURATION:-PT1H"), &["line 6", "-PT1H"]),
        (format!("{start}DURATION:P999999W"), &["hundred years"]),
        (format!("{start}DURATION:PT1H\nRRULE:FREQ=HOURLY"), &["line 7", "FREQ"]),
        (format!("{start}DURATION:PT1H\nEXRULE:FREQ=DAILY"), &["EXRULE"]),
        (format!("{start}RDATE;VALUE=PERIOD:20261106T090000Z/PT1H"), &["line 6", "PT1H"]),
        ("DTSTART;TZID=Eastern Standard Time:20261105T090000".to_owned(), &["VTIMEZONE", "America/New_York"]),
        (format!("{start}RECURRENCE-ID;RANGE=THISANDFUTURE:20261105T090000Z"), &["RANGE"]),
    ] {
        let said = complaint(&lines);
        let named = said.contains("line 2, event \"One\" (UID \"one\")");
        assert!(named && words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn work_is_bounded() {
    let often = "DTSTART:20200101T000000Z\nDURATION:PT1H\nRRULE:FREQ=DAILY";
    let text = calendar(&format!("BEGIN:VEVENT\nUID:a\n{often}\nEND:VEVENT"));
    let years = options(PROVIDER, "2026-01-01", "2041-01-01");
    let error = format!("{:#}", plan(text.as_bytes(), &years).unwrap_err());
    assert!(error.contains("5000 times") && error.contains("--until"), "{error}");
    let many: String = (0..30).map(|n| format!("BEGIN:VEVENT\nUID:{n}\n{often}\nEND:VEVENT\n")).collect();
    let year = options(PROVIDER, "2026-01-01", "2026-12-31");
    let error = format!("{:#}", plan(calendar(&many).as_bytes(), &year).unwrap_err());
    assert!(error.contains("10000 entries"), "{error}");
    let counting: String = (0..101)
        .map(|n| {
            format!(
                "BEGIN:VEVENT\nUID:{n}\nDTSTART:19700101T000000Z\nRRULE:FREQ=YEARLY;COUNT=5000\nEND:VEVENT\n"
            )
        })
        .collect();
    let error = format!("{:#}", plan(calendar(&counting).as_bytes(), &year).unwrap_err());
    assert!(error.contains("COUNT") && error.contains("UID \"100\""), "{error}");
    // A long line costs no more than its length.
    let except = vec!["20260301T000000Z"; 50_000].join(",");
    let text = calendar(&format!("BEGIN:VEVENT\nUID:a\n{often}\nEXDATE:{except}\nEND:VEVENT"));
    assert_eq!(plan(text.as_bytes(), &year).unwrap().planned.len(), 364);
    let none = plan(calendar("").as_bytes(), &year).unwrap_err();
    assert!(none.to_string().contains("no events"));
}

#[test]
fn a_damaged_file_is_read_or_refused_and_never_breaks_the_program() {
    /// Coprime to the length of most lines, so that every part of a line is hit.
    const STEP: usize = 29;
    let mut refused = 0;
    for (text, target) in [(GOOGLE, PROVIDER), (OUTLOOK, PROVIDER), (HOLIDAYS, CLINIC)] {
        let options = options(target, "2026-10-01", "2027-01-31");
        for at in (0..text.len()).step_by(STEP) {
            refused += usize::from(plan(&text.as_bytes()[..at], &options).is_err());
            for byte in [b'9', b'-', b';', b'\n', 0xff] {
                let mut damaged = text.as_bytes().to_vec();
                damaged[at] = byte;
                refused += usize::from(plan(&damaged, &options).is_err());
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

//! Clinics, rooms, service types, providers, their weeks, holidays and fees.

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Utc, Weekday};
use kit::fields::{date, time_of_day};
use proto::clinic::billing::v1::{Fee, SetFeeScheduleRequest};
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, Blackout, Clinic, CreateClinicRequest, CreateProviderRequest, CreateRoomRequest,
    CreateServiceTypeRequest, DateSpan, OpeningHours, Provider, PutWeeklyTemplateRequest, Room, ServiceType,
    WeeklyTemplate, blackout,
};
use proto::google::r#type::{DayOfWeek, Money};

use super::{Step, id};

struct ClinicPlan {
    key: &'static str,
    name: &'static str,
    zone: &'static str,
    phone: &'static str,
    address: &'static str,
    open: u16,
    close: u16,
    saturday: bool,
    rooms: &'static [(&'static str, &'static [&'static str])],
}

const CLINICS: [ClinicPlan; 3] = [
    ClinicPlan {
        key: "harbor",
        name: "Harbor Clinic",
        zone: "America/New_York",
        phone: "+12025550170",
        address: "12 Quay Street\nBaltimore, MD",
        open: 8 * 60,
        close: 18 * 60,
        saturday: true,
        rooms: &[("H1", &[]), ("H2", &[]), ("H3", &["procedure"]), ("H4", &["ultrasound"])],
    },
    ClinicPlan {
        key: "lakeside",
        name: "Lakeside Clinic",
        zone: "America/Chicago",
        phone: "+13125550170",
        address: "800 Shore Drive\nChicago, IL",
        open: 8 * 60,
        close: 17 * 60 + 30,
        saturday: false,
        rooms: &[("L1", &[]), ("L2", &["procedure"]), ("L3", &["ultrasound"])],
    },
    ClinicPlan {
        key: "prairie",
        name: "Prairie Clinic",
        zone: "America/Chicago",
        phone: "+13125550171",
        address: "4 Mill Road\nNaperville, IL",
        open: 7 * 60 + 30,
        close: 16 * 60,
        saturday: false,
        rooms: &[("P1", &[]), ("P2", &[]), ("P3", &["procedure"])],
    },
];

struct ServicePlan {
    key: &'static str,
    name: &'static str,
    minutes: i32,
    buffer_after: i32,
    features: &'static [&'static str],
    /// Co-pay and no-show fee in whole dollars; `None` = free of both.
    fees: Option<(i64, i64)>,
}

const SERVICES: [ServicePlan; 6] = [
    ServicePlan {
        key: "follow-up",
        name: "Follow-up",
        minutes: 15,
        buffer_after: 0,
        features: &[],
        fees: None,
    },
    ServicePlan {
        key: "vaccination",
        name: "Vaccination",
        minutes: 15,
        buffer_after: 0,
        features: &[],
        fees: None,
    },
    ServicePlan {
        key: "sick-visit",
        name: "Sick visit",
        minutes: 15,
        buffer_after: 0,
        features: &[],
        fees: Some((25, 25)),
    },
    ServicePlan {
        key: "new-patient",
        name: "New patient visit",
        minutes: 30,
        buffer_after: 5,
        features: &[],
        fees: Some((40, 50)),
    },
    ServicePlan {
        key: "minor-procedure",
        name: "Minor procedure",
        minutes: 30,
        buffer_after: 10,
        features: &["procedure"],
        fees: Some((60, 75)),
    },
    ServicePlan {
        key: "ultrasound",
        name: "Ultrasound",
        minutes: 30,
        buffer_after: 0,
        features: &["ultrasound"],
        fees: Some((50, 50)),
    },
];

/// Name, field, languages, and weeks: (clinic, RRULE, from, until in minutes after midnight).
type Week = (&'static str, &'static str, u16, u16);
const WORKDAYS: &str = "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR";
const EARLY: &str = "FREQ=WEEKLY;BYDAY=MO,TU,WE";
const LATE: &str = "FREQ=WEEKLY;BYDAY=TH,FR";
const OTHER_SATURDAYS: &str = "FREQ=WEEKLY;INTERVAL=2;BYDAY=SA";

const PROVIDERS: [(&str, &str, &[&str], &[Week]); 12] = [
    (
        "Dr. Amara Okafor",
        "Family medicine",
        &["en"],
        &[("harbor", WORKDAYS, 540, 720), ("harbor", WORKDAYS, 780, 1020)],
    ),
    (
        "Dr. Benjamin Hart",
        "Internal medicine",
        &["en"],
        &[("harbor", WORKDAYS, 480, 720), ("harbor", EARLY, 780, 960)],
    ),
    (
        "Dr. Carla Ruiz",
        "Dermatology",
        &["en", "es"],
        &[("harbor", EARLY, 540, 1020), ("harbor", OTHER_SATURDAYS, 540, 780)],
    ),
    (
        "Nora Lindqvist, NP",
        "Family medicine",
        &["en", "sv"],
        &[("harbor", WORKDAYS, 600, 840), ("harbor", LATE, 870, 1080)],
    ),
    (
        "Dr. Daniel Cho",
        "Radiology",
        &["en", "ko"],
        &[("harbor", EARLY, 480, 780), ("lakeside", LATE, 540, 960)],
    ),
    (
        "Dr. Elena Petrova",
        "Internal medicine",
        &["en", "ru"],
        &[("lakeside", WORKDAYS, 540, 720), ("lakeside", WORKDAYS, 765, 1020)],
    ),
    ("Dr. Farid Haddad", "Orthopedics", &["en", "ar"], &[("lakeside", EARLY, 480, 900)]),
    ("Grace Nakamura, PA", "Family medicine", &["en", "ja"], &[("lakeside", WORKDAYS, 600, 960)]),
    ("Dr. Hugo Martin", "Cardiology", &["en", "fr"], &[("lakeside", LATE, 480, 1020)]),
    (
        "Dr. Imani Brooks",
        "Pediatrics",
        &["en"],
        &[("prairie", WORKDAYS, 480, 720), ("prairie", WORKDAYS, 750, 930)],
    ),
    (
        "Dr. Jonas Weber",
        "Family medicine",
        &["en", "de"],
        &[("prairie", EARLY, 450, 870), ("lakeside", LATE, 600, 900)],
    ),
    ("Katya Sousa, NP", "Women's health", &["en", "pt", "es"], &[("prairie", WORKDAYS, 540, 900)]),
];

const WEEK: [DayOfWeek; 5] =
    [DayOfWeek::Monday, DayOfWeek::Tuesday, DayOfWeek::Wednesday, DayOfWeek::Thursday, DayOfWeek::Friday];

/// The network, stage after stage, because each names what the one before made. Providers come late: a blackout or a room that is
/// there before them changes nobody's calendar.
pub(super) fn stages(now: DateTime<Utc>) -> Vec<Vec<Step>> {
    let year = now.year();
    let places = CLINICS.iter().map(clinic).chain(SERVICES.iter().map(service_type));
    let around = CLINICS.iter().flat_map(|plan| rooms_and_fees(plan, now));
    let holidays = [year, year + 1].into_iter().flat_map(holidays).map(|(name, day)| closed(name, day));
    let templates = PROVIDERS.iter().flat_map(|(name, _, _, weeks)| {
        weeks.iter().enumerate().map(move |(i, week)| template(name, i, *week, year))
    });
    vec![
        places.collect(),
        around.chain(holidays).collect(),
        PROVIDERS
            .iter()
            .map(|(name, specialty, languages, _)| provider(name, specialty, languages))
            .collect(),
        templates.collect(),
    ]
}

fn clinic(plan: &ClinicPlan) -> Step {
    let span = |day: DayOfWeek, open: u16, close: u16| OpeningHours {
        day: day as i32,
        open: Some(time_of_day(open)),
        close: Some(time_of_day(close)),
    };
    let mut opening_hours: Vec<_> = WEEK.iter().map(|day| span(*day, plan.open, plan.close)).collect();
    if plan.saturday {
        opening_hours.push(span(DayOfWeek::Saturday, 540, 780));
    }
    Step::Clinic(CreateClinicRequest {
        request_id: String::new(),
        clinic_id: id(&format!("clinic/{}", plan.key)).to_string(),
        clinic: Some(Clinic {
            name: plan.name.to_owned(),
            time_zone: plan.zone.to_owned(),
            opening_hours,
            phone: plan.phone.to_owned(),
            address: plan.address.to_owned(),
            ..Default::default()
        }),
    })
}

fn service_type(plan: &ServicePlan) -> Step {
    Step::ServiceType(CreateServiceTypeRequest {
        request_id: String::new(),
        service_type_id: id(&format!("service/{}", plan.key)).to_string(),
        service_type: Some(ServiceType {
            name: plan.name.to_owned(),
            duration_minutes: plan.minutes,
            buffer_after_minutes: plan.buffer_after,
            room_features: plan.features.iter().map(|f| (*f).to_owned()).collect(),
            copay_required: plan.fees.is_some(),
            ..Default::default()
        }),
    })
}

fn rooms_and_fees(plan: &ClinicPlan, now: DateTime<Utc>) -> Vec<Step> {
    let clinic_id = id(&format!("clinic/{}", plan.key)).to_string();
    let room = |(name, features): &(&str, &[&str])| {
        Step::Room(CreateRoomRequest {
            request_id: String::new(),
            room_id: id(&format!("room/{name}")).to_string(),
            room: Some(Room {
                clinic_id: clinic_id.clone(),
                name: format!("Room {name}"),
                features: features.iter().map(|f| (*f).to_owned()).collect(),
                ..Default::default()
            }),
        })
    };
    // The day that is today in the last time zone to reach it: fees cannot begin on a day that is over.
    let from = (now - TimeDelta::hours(12)).date_naive();
    plan.rooms.iter().map(room).chain([Step::Fees(fees(&clinic_id, from))]).collect()
}

fn provider(name: &str, specialty: &str, languages: &[&str]) -> Step {
    Step::Provider(CreateProviderRequest {
        request_id: String::new(),
        provider_id: id(&format!("provider/{name}")).to_string(),
        provider: Some(Provider {
            name: name.to_owned(),
            specialty: specialty.to_owned(),
            languages: languages.iter().map(|l| (*l).to_owned()).collect(),
            ..Default::default()
        }),
    })
}

fn fees(clinic_id: &str, from: NaiveDate) -> SetFeeScheduleRequest {
    let dollars = |units| Some(Money { currency_code: "USD".to_owned(), units, nanos: 0 });
    let fees = SERVICES.iter().filter_map(|plan| {
        let (copay, no_show) = plan.fees?;
        Some(Fee {
            service_type_id: id(&format!("service/{}", plan.key)).to_string(),
            effective_from: Some(date(from)),
            copay_amount: dollars(copay),
            no_show_fee_amount: dollars(no_show),
            ..Default::default()
        })
    });
    SetFeeScheduleRequest { clinic_id: clinic_id.to_owned(), fees: fees.collect(), ..Default::default() }
}

fn template(provider: &str, number: usize, (clinic, rule, from, until): Week, year: i32) -> Step {
    let zone = CLINICS.iter().find(|c| c.key == clinic).map_or("UTC", |c| c.zone);
    // The first week of the year before, so that the pattern of other weeks is the same all year.
    let start = first_monday(year - 1);
    let start = match rule {
        OTHER_SATURDAYS => start + TimeDelta::days(5),
        LATE => start + TimeDelta::days(3),
        _ => start,
    };
    let rule = format!(
        "DTSTART;TZID={zone}:{}T{:02}{:02}00\nRRULE:{rule}",
        start.format("%Y%m%d"),
        from / 60,
        from % 60
    );
    Step::Template(PutWeeklyTemplateRequest {
        request_id: String::new(),
        weekly_template: Some(WeeklyTemplate {
            id: id(&format!("template/{provider}/{number}")).to_string(),
            provider_id: id(&format!("provider/{provider}")).to_string(),
            clinic_id: id(&format!("clinic/{clinic}")).to_string(),
            rule,
            start_time: Some(time_of_day(from)),
            end_time: Some(time_of_day(until)),
            ..Default::default()
        }),
    })
}

fn closed(name: &str, day: NaiveDate) -> Step {
    let days = DateSpan { first_date: Some(date(day)), last_date: None };
    Step::Blackout(AddBlackoutRequest {
        request_id: String::new(),
        blackout_id: id(&format!("blackout/{day}")).to_string(),
        blackout: Some(Blackout {
            name: name.to_owned(),
            span: Some(blackout::Span::Days(days)),
            ..Default::default()
        }),
    })
}

fn first_monday(year: i32) -> NaiveDate {
    nth(year, 1, Weekday::Mon, 1)
}

/// The n-th such day of a month.
fn nth(year: i32, month: u32, day: Weekday, n: u8) -> NaiveDate {
    NaiveDate::from_weekday_of_month_opt(year, month, day, n).expect("every month has four of each weekday")
}

/// The federal holidays of the United States (5 U.S.C. 6103), on their own days.
fn holidays(year: i32) -> Vec<(&'static str, NaiveDate)> {
    let on = |month, day| NaiveDate::from_ymd_opt(year, month, day).expect("a fixed date of any year");
    let last_monday_of_may = {
        let end = on(5, 31);
        end - TimeDelta::days(i64::from(end.weekday().num_days_from_monday()))
    };
    vec![
        ("New Year's Day", on(1, 1)),
        ("Martin Luther King Jr. Day", nth(year, 1, Weekday::Mon, 3)),
        ("Presidents' Day", nth(year, 2, Weekday::Mon, 3)),
        ("Memorial Day", last_monday_of_may),
        ("Juneteenth", on(6, 19)),
        ("Independence Day", on(7, 4)),
        ("Labor Day", nth(year, 9, Weekday::Mon, 1)),
        ("Columbus Day", nth(year, 10, Weekday::Mon, 2)),
        ("Veterans Day", on(11, 11)),
        ("Thanksgiving", nth(year, 11, Weekday::Thu, 4)),
        ("Christmas Day", on(12, 25)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holidays_of_2026_fall_where_the_calendar_says() {
        let days: Vec<_> =
            holidays(2026).into_iter().map(|(_, day)| day.format("%m-%d").to_string()).collect();
        let expected = [
            "01-01", "01-19", "02-16", "05-25", "06-19", "07-04", "09-07", "10-12", "11-11", "11-26", "12-25",
        ];
        assert_eq!(days, expected);
    }

    #[test]
    fn the_network_has_the_promised_size() {
        assert_eq!(CLINICS.iter().map(|c| c.rooms.len()).sum::<usize>(), 10);
        let zones: std::collections::HashSet<_> = CLINICS.iter().map(|c| c.zone).collect();
        assert_eq!((CLINICS.len(), zones.len(), PROVIDERS.len()), (3, 2, 12));
    }
}

//! What patients are told beside reminders: when it may be told, to whom, and in which words.

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::America::New_York;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, ChargeId, ClinicId, PatientId, ProviderId};
use notify::ports::Contact;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentDisplaced, AppointmentRescheduled, AppointmentState,
    Cancellation, SlotOption, WaitlistOfferClosed, WaitlistOffered,
};
use proto::clinic::billing::v1::{BalanceOwed, CopayAuthorizationFailed, CopayAuthorized, CopayLapsed};
use proto::clinic::notify::v1::{
    DropReason, FailureReason, Message, MessageKind, MessageState, ReminderState,
};
use proto::google::r#type::{Interval, Money};

use crate::sending::{booked_with_form, everyone};
use crate::{MockPatients, PHONE, Suite, Visit, reachable};

/// A suite where it is noon in New York, and no reminder of [`Suite::visit`] is near.
pub(crate) async fn at_noon() -> Suite {
    let suite = Suite::start().await;
    to_noon(&suite).await;
    suite
}

pub(crate) async fn to_noon(suite: &Suite) {
    suite.servers.advance_to(next(suite, 12)).await;
}

/// When clocks in New York show `hour` next, a day on at least.
pub(crate) fn next(suite: &Suite, hour: u32) -> DateTime<Utc> {
    let day = suite.servers.clock.now().with_timezone(&New_York).date_naive() + chrono::Days::new(1);
    let local = day.and_hms_opt(hour, 0, 0).expect("a time of day");
    local.and_local_timezone(New_York).earliest().expect("no clock changes then").to_utc()
}

fn booked(visit: &Visit) -> AppointmentBooked {
    AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() }
}

fn sent(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.state() == MessageState::Sent)
}

fn dropped(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.state() == MessageState::Dropped)
}

#[tokio::test]
async fn a_patient_is_told_of_booking_moving_and_cancelling() {
    let suite = at_noon().await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked(&visit)).await;
    let told = suite.when_told(&visit, MessageKind::Booked, sent).await;
    let start = visit.start.with_timezone(&New_York);
    let expected = format!(
        "Harbor Clinic: your visit is booked for {} at 2:00 PM.\nQuestions: +12025550100",
        start.format("%a, %b %-d")
    );
    assert_eq!((told[0].body.as_str(), told[0].appointment_version, told[0].segments), (&*expected, 1, 1));

    let later = Visit { start: visit.start + TimeDelta::days(1), ..visit.clone() };
    let moved = AppointmentRescheduled {
        appointment: later.facts(AppointmentState::Booked),
        previous: visit.facts(AppointmentState::Booked),
        ..Default::default()
    };
    suite.happens(&visit, 2, &moved).await;
    let told = suite.when_told(&visit, MessageKind::Rescheduled, sent).await;
    let (old, new) = (start.format("%a, %b %-d"), later.start.with_timezone(&New_York));
    let said = format!("your visit moved from {old}, 2:00 PM to {} at 2:00 PM.", new.format("%a, %b %-d"));
    assert!(told[0].body.contains(&said), "{}", told[0].body);

    let cancelled = AppointmentCancelled {
        appointment: later.facts(AppointmentState::Cancelled),
        cancellation: Some(Cancellation { fee_due: true, ..Default::default() }),
        ..Default::default()
    };
    suite.happens(&visit, 3, &cancelled).await;
    let told = suite.when_told(&visit, MessageKind::Cancelled, sent).await;
    assert!(told[0].body.contains("is cancelled. A late cancellation fee applies.\n"), "{}", told[0].body);

    let texts = suite.taken().await;
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|text| text["to"] == PHONE));
}

#[tokio::test]
async fn a_displaced_visit_is_told_with_times_to_choose_from_and_a_kept_one_as_booked() {
    let suite = at_noon().await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked(&visit)).await;
    suite.when_told(&visit, MessageKind::Booked, sent).await;
    let slot = |days| SlotOption {
        provider_id: ProviderId::new().to_string(),
        interval: Some(Interval {
            start_time: Some(timestamp(visit.start + TimeDelta::days(days))),
            ..Default::default()
        }),
        ..Default::default()
    };
    let displaced = AppointmentDisplaced {
        appointment: visit.facts(AppointmentState::Displaced),
        alternatives: vec![slot(1), slot(2)],
        ..Default::default()
    };
    suite.happens(&visit, 2, &displaced).await;
    let told = suite.when_told(&visit, MessageKind::Displaced, sent).await;
    let day = |days| (visit.start + TimeDelta::days(days)).with_timezone(&New_York).format("%a, %b %-d");
    let said = format!("Reply 1: {} 2:00 PM, 2: {} 2:00 PM\n", day(1), day(2));
    assert!(told[0].body.contains(&said), "{}", told[0].body);

    let kept = AppointmentRescheduled {
        appointment: visit.facts(AppointmentState::Booked),
        previous: visit.facts(AppointmentState::Displaced),
        ..Default::default()
    };
    suite.happens(&visit, 3, &kept).await;
    suite
        .when_told(&visit, MessageKind::Booked, |told| {
            told.len() == 2 && told.iter().all(|m| m.state() == MessageState::Sent)
        })
        .await;
}

#[tokio::test]
async fn news_of_the_night_are_told_in_the_morning_unless_newer_ones_replace_them() {
    let suite = Suite::start().await;
    suite.servers.advance_to(next(&suite, 22)).await;
    let (kept, moved) = (suite.visit(), suite.visit());
    suite.happens(&kept, 1, &booked(&kept)).await;
    suite.happens(&moved, 1, &booked(&moved)).await;
    suite.reminders_when(&moved, |r| r.len() == 2).await;
    let cancelled =
        AppointmentCancelled { appointment: moved.facts(AppointmentState::Cancelled), ..Default::default() };
    suite.happens(&moved, 2, &cancelled).await;
    suite.servers.advance(TimeDelta::hours(1)).await;
    assert!(suite.taken().await.is_empty());
    suite.servers.advance_to(next(&suite, 8)).await;
    suite.when_told(&kept, MessageKind::Booked, sent).await;
    suite.when_told(&moved, MessageKind::Cancelled, sent).await;
    assert!(suite.messages(&moved).await.iter().all(|message| message.kind() == MessageKind::Cancelled));
    assert_eq!(suite.taken().await.len(), 2);
}

#[tokio::test]
async fn a_visit_with_a_form_asks_for_it_three_days_before() {
    let mut patients = everyone(reachable());
    patients.expect_has_open_intake().returning(|_| Ok(true));
    let suite = Suite::with(patients).await;
    to_noon(&suite).await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked_with_form(&visit)).await;
    suite.when_told(&visit, MessageKind::Booked, sent).await;
    assert_eq!(suite.messages(&visit).await.len(), 1);
    suite.servers.advance_to(visit.start - TimeDelta::hours(72)).await;
    let told = suite.when_told(&visit, MessageKind::IntakeOpen, sent).await;
    assert!(told[0].body.contains(&format!("{}/intake/{}", crate::PORTAL, visit.id)), "{}", told[0].body);
}

#[tokio::test]
async fn a_form_that_is_filled_in_is_not_asked_for() {
    let suite = at_noon().await;
    let (filled, other) = (suite.visit(), suite.visit());
    suite.happens(&filled, 1, &booked_with_form(&filled)).await;
    suite.happens(&other, 1, &booked(&other)).await;
    suite.when_told(&filled, MessageKind::Booked, sent).await;
    for visit in [&filled, &other] {
        suite.reminders_when(visit, |r| r.len() == 2).await;
    }
    suite.servers.advance_to(filled.start - TimeDelta::hours(72)).await;
    suite.servers.advance_to(filled.start - TimeDelta::hours(24)).await;
    for visit in [&filled, &other] {
        suite.reminders_when(visit, |r| r[0].state() == ReminderState::Sent).await;
    }
    let told = suite.messages(&filled).await;
    assert!(told.iter().all(|message| message.kind() != MessageKind::IntakeOpen), "{told:?}");
}

/// Someone who has not agreed to texts, or has no phone.
async fn with(contact: Contact) -> Suite {
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |_| Ok(Some(contact.clone())));
    let suite = Suite::with(patients).await;
    to_noon(&suite).await;
    suite
}

#[tokio::test]
async fn nobody_is_told_without_consent_or_number() {
    for (contact, reason) in [
        (Contact { consented: false, ..reachable() }, DropReason::NoConsent),
        (Contact { consented: false, withdrawn: true, ..reachable() }, DropReason::NoConsent),
        (Contact { phone: None, ..reachable() }, DropReason::NoContact),
    ] {
        let suite = with(contact).await;
        let visit = suite.visit();
        suite.happens(&visit, 1, &booked(&visit)).await;
        let told = suite.when_told(&visit, MessageKind::Booked, dropped).await;
        assert_eq!((told[0].drop_reason(), told[0].body.as_str()), (reason, ""));
        assert!(suite.taken().await.is_empty());
    }
}

#[tokio::test]
async fn texts_speak_the_patients_language() {
    let suite = with(Contact { language: "es-MX".to_owned(), ..reachable() }).await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked(&visit)).await;
    let told = suite.when_told(&visit, MessageKind::Booked, sent).await;
    assert!(told[0].body.starts_with("Harbor Clinic: su cita queda reservada para el "), "{}", told[0].body);
    assert_eq!(told[0].language, "es");
}

fn offer(visit: &Visit, ends: DateTime<Utc>) -> WaitlistOffered {
    WaitlistOffered {
        appointment: visit.facts(AppointmentState::Offered),
        expire_time: Some(timestamp(ends)),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_offer_is_told_while_it_stands() {
    let suite = at_noon().await;
    let (open, closed, booking) = (suite.visit(), suite.visit(), suite.visit());
    let ends = suite.servers.clock.now() + TimeDelta::minutes(15);
    let by_itself = WaitlistOffered { auto_book: true, ..offer(&booking, ends) };
    suite.happens(&booking, 1, &by_itself).await;
    let over =
        WaitlistOfferClosed { appointment: closed.facts(AppointmentState::Declined), ..Default::default() };
    suite.happens(&closed, 2, &over).await;
    suite.happens(&closed, 1, &offer(&closed, ends)).await;
    suite.happens(&open, 1, &offer(&open, ends)).await;
    let told = suite.when_told(&open, MessageKind::WaitlistOffer, sent).await;
    let until = ends.with_timezone(&New_York).format("%-I:%M %p").to_string();
    let said = format!("Reply 1 to take it, 2 to pass, before {until}.");
    assert!(told[0].body.contains(&said), "{}", told[0].body);
    assert!(suite.messages(&closed).await.is_empty() && suite.reminders(&open).await.is_empty());
    assert!(suite.messages(&booking).await.is_empty(), "the suite answers it");
}

/// Tells an event about a charge, as billing would.
async fn bill<E: prost::Message + prost::Name>(suite: &Suite, charge: ChargeId, version: i64, event: &E) {
    let now = suite.servers.clock.now();
    testkit::publish_at(&suite.broker, "billing", charge, version, now, event).await;
}

fn dollars(units: i64) -> Option<Money> {
    Some(Money { currency_code: "USD".to_owned(), units, nanos: 0 })
}

#[tokio::test]
async fn a_problem_with_a_payment_is_told_once_and_a_renewed_one_not_at_all() {
    let suite = at_noon().await;
    let (failed, lapsed, renewed) = (suite.visit(), suite.visit(), suite.visit());
    for visit in [&failed, &lapsed, &renewed] {
        suite.happens(visit, 1, &booked(visit)).await;
        suite.when_told(visit, MessageKind::Booked, sent).await;
    }
    let failure = |visit: &Visit, renewal| CopayAuthorizationFailed {
        appointment_id: visit.id.to_string(),
        patient_id: visit.patient.to_string(),
        clinic_id: ClinicId::new().to_string(),
        amount: dollars(25),
        renewal,
        ..Default::default()
    };
    let lapse = |visit: &Visit| CopayLapsed {
        appointment_id: visit.id.to_string(),
        patient_id: visit.patient.to_string(),
        clinic_id: ClinicId::new().to_string(),
        amount: dollars(30),
        ..Default::default()
    };
    // At booking the patient stands before the answer.
    bill(&suite, ChargeId::new(), 1, &failure(&failed, false)).await;
    bill(&suite, ChargeId::new(), 3, &failure(&failed, true)).await;
    bill(&suite, ChargeId::new(), 2, &lapse(&lapsed)).await;
    let charge = ChargeId::new();
    bill(&suite, charge, 2, &lapse(&renewed)).await;
    bill(&suite, charge, 3, &CopayAuthorized { renewal: true, ..Default::default() }).await;
    let told = suite.when_told(&failed, MessageKind::PaymentProblem, sent).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].body.contains("your payment of $25.00 did not go through. It is for your visit "));
    suite.servers.advance(TimeDelta::hours(1)).await;
    suite.when_told(&lapsed, MessageKind::PaymentProblem, sent).await;

    let owed = BalanceOwed {
        appointment_id: AppointmentId::new().to_string(),
        patient_id: renewed.patient.to_string(),
        clinic_id: ClinicId::new().to_string(),
        amount: dollars(50),
        ..Default::default()
    };
    bill(&suite, ChargeId::new(), 4, &owed).await;
    testkit::until("a debt is told", || async {
        let said = "your payment of $50.00 did not go through.\nPlease call";
        let told = suite.taken().await.into_iter();
        told.filter_map(|text| text["body"].as_str().map(str::to_owned))
            .find(|body| body.replace(". ", ".\n").contains(said))
    })
    .await;
    let of_renewed = suite.messages(&renewed).await;
    assert!(of_renewed.iter().all(|message| message.kind() == MessageKind::Booked));
}

#[tokio::test]
async fn a_text_whose_answer_was_lost_is_found_and_one_that_never_came_is_sent_again() {
    for (fault, attempts) in [("act_then_drop", 1), ("drop", 2)] {
        let suite = at_noon().await;
        let visit = suite.visit();
        suite.fail_next_text(fault).await;
        suite.happens(&visit, 1, &booked(&visit)).await;
        suite
            .when_told(&visit, MessageKind::Booked, |told| {
                told.iter().any(|m| m.state() == MessageState::Unknown)
            })
            .await;
        suite.servers.advance(TimeDelta::minutes(1)).await;
        let told = suite.when_told(&visit, MessageKind::Booked, sent).await;
        assert_eq!((told[0].attempts, suite.taken().await.len()), (attempts, 1), "{fault}");
    }
}

#[tokio::test]
async fn nobody_gets_more_texts_in_a_day_than_is_decent() {
    let suite = at_noon().await;
    let first = suite.visit();
    let visits: Vec<Visit> = (0..8)
        .map(|days| Visit {
            id: AppointmentId::new(),
            start: first.start + TimeDelta::days(days),
            ..first.clone()
        })
        .collect();
    for visit in &visits {
        suite.happens(visit, 1, &booked(visit)).await;
    }
    let mut capped = 0;
    for visit in &visits {
        let told = suite.when_told(visit, MessageKind::Booked, |told| sent(told) || dropped(told)).await;
        capped += usize::from(told[0].drop_reason() == DropReason::CapReached);
    }
    assert_eq!((capped, suite.taken().await.len()), (2, 6));
}

#[tokio::test]
async fn reminders_count_towards_what_is_decent() {
    let suite = at_noon().await;
    let first = suite.visit();
    let visits: Vec<Visit> = (0..8).map(|_| Visit { id: AppointmentId::new(), ..first.clone() }).collect();
    for visit in &visits {
        suite.tell(visit, 1, &booked(visit)).await;
    }
    for visit in &visits {
        suite.reminders_when(visit, |r| r.len() == 2).await;
    }
    suite.servers.advance_to(first.start - TimeDelta::hours(24)).await;
    let mut capped = 0;
    for visit in &visits {
        let settled = [ReminderState::Sent, ReminderState::Dropped];
        let reminders = suite.reminders_when(visit, |r| settled.contains(&r[0].state())).await;
        capped += usize::from(reminders[0].drop_reason() == DropReason::CapReached);
    }
    assert_eq!((capped, suite.taken().await.len()), (2, 6));
}

#[tokio::test]
async fn what_is_no_number_fails_for_good_and_stops_nobody_else() {
    const NUMBERS: [&str; 6] =
        ["2025550123", "+1 202 555 0123", "+0123456789", "tel:+12025550123", "+1202555012345678", PHONE];
    let seen: Mutex<Vec<PatientId>> = Mutex::default();
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |patient| {
        let mut seen = seen.lock().expect("held");
        let place = seen.iter().position(|known| *known == patient).unwrap_or_else(|| {
            seen.push(patient);
            seen.len() - 1
        });
        Ok(Some(Contact { phone: Some(NUMBERS[place].to_owned()), ..reachable() }))
    });
    let suite = Suite::with(patients).await;
    to_noon(&suite).await;
    for (place, _) in NUMBERS.iter().enumerate() {
        let visit = suite.visit();
        suite.happens(&visit, 1, &booked(&visit)).await;
        let ended = [MessageState::Failed, MessageState::Sent];
        let told = suite
            .when_told(&visit, MessageKind::Booked, |told| told.iter().any(|m| ended.contains(&m.state())))
            .await;
        let reason = if place == NUMBERS.len() - 1 {
            FailureReason::Unspecified
        } else {
            FailureReason::InvalidAddress
        };
        assert_eq!(told[0].failure_reason(), reason, "{}", NUMBERS[place]);
    }
}

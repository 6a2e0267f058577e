//! Offers of freed time: told while they stand, answered by a digit, and what came of that said once.

use chrono::TimeDelta;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, PatientId, WaitlistEntryId};
use notify::ports::Contact;
use notify::replies::ports::{OfferAnswer, Settled};
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentRescheduled, AppointmentState, OfferState, WaitlistOfferClosed,
    WaitlistOffered,
};
use proto::clinic::notify::v1::{
    Channel, DropReason, Message, MessageKind, MessageState, ReminderState, ReplyMeaning, ReplyReceived,
};

use crate::notices::{at_noon, next};
use crate::sending::{due, everyone};
use crate::{PHONE, Suite, Visit, reachable};

/// How long offers stand here.
const STANDS: TimeDelta = TimeDelta::minutes(15);

fn sent(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.state() == MessageState::Sent)
}

impl Suite {
    /// Time is offered to somebody at [`PHONE`], and nobody has been told yet.
    async fn offers(&self) -> Visit {
        let visit = self.visit();
        self.others.at_phone(visit.patient);
        self.offers_to(&visit).await;
        visit
    }

    async fn offers_to(&self, visit: &Visit) {
        let ends = self.servers.clock.now() + STANDS;
        let offered = WaitlistOffered {
            appointment: visit.facts(AppointmentState::Offered),
            expire_time: Some(timestamp(ends)),
            ..Default::default()
        };
        self.happens(visit, 1, &offered).await;
    }

    async fn offered(&self) -> Visit {
        let visit = self.offers().await;
        self.when_told(&visit, MessageKind::WaitlistOffer, sent).await;
        visit
    }

    async fn closes(&self, visit: &Visit, state: AppointmentState, outcome: OfferState) {
        let closed = WaitlistOfferClosed {
            appointment: visit.facts(state),
            outcome: outcome.into(),
            ..Default::default()
        };
        self.happens(visit, 2, &closed).await;
    }

    /// The visit that an offer was taken for.
    async fn books(&self, visit: &Visit) {
        self.closes(visit, AppointmentState::Booked, OfferState::Accepted).await;
        let booked = AppointmentBooked {
            appointment_id: visit.id.to_string(),
            appointment: visit.facts(AppointmentState::Booked),
            waitlist_entry_id: WaitlistEntryId::new().to_string(),
            ..Default::default()
        };
        self.happens(visit, 3, &booked).await;
    }

    /// What was asked of appointments, once it was asked so often.
    async fn asked(&self, times: usize) -> Vec<OfferAnswer> {
        let asked = testkit::until("an offer is answered", async || {
            let answered = self.others.answered();
            (answered.len() >= times).then_some(answered)
        });
        asked.await.into_iter().map(|(answer, _)| answer).collect()
    }

    /// The answer to a text, the latest of so many.
    async fn answer_to(&self, body: &str, count: usize) -> String {
        self.write_from(PHONE, body).await;
        self.of_kind(MessageKind::ReplyOutcome, count).await.remove(count - 1).body
    }
}

fn takes(visit: &Visit) -> OfferAnswer {
    OfferAnswer { offer: visit.id, patient: visit.patient, takes: true }
}

fn passes(visit: &Visit) -> OfferAnswer {
    OfferAnswer { takes: false, ..takes(visit) }
}

#[tokio::test]
async fn an_offer_taken_by_digit_is_told_as_the_visit_that_it_became_and_not_twice() {
    let suite = at_noon().await;
    let visit = suite.offered().await;
    suite.write_from(PHONE, "1").await;
    assert_eq!(suite.asked(1).await, [takes(&visit)]);
    suite.books(&visit).await;
    suite.when_told(&visit, MessageKind::Booked, sent).await;
    let told: ReplyReceived = testkit::collect(&suite.broker, "notify", 1).await.remove(0);
    assert_eq!(
        (told.meaning(), told.choice, told.offer_id.as_str(), told.patient_id.as_str()),
        (ReplyMeaning::AcceptOffer, 1, &*visit.id.to_string(), &*visit.patient.to_string())
    );
    let kinds: Vec<_> = suite.all_messages().await.iter().map(Message::kind).collect();
    assert_eq!(kinds, [MessageKind::Booked, MessageKind::Inbound, MessageKind::WaitlistOffer]);

    suite.others.settles(Settled::BookedBefore);
    let again = suite.answer_to("1", 1).await;
    assert!(again.starts_with("Thank you. We expect you on "), "{again}");
}

#[tokio::test]
async fn an_offer_that_moves_a_visit_is_told_as_the_move() {
    let suite = at_noon().await;
    let (offer, later) = (suite.offered().await, suite.visit());
    let later =
        Visit { id: AppointmentId::new(), patient: offer.patient, start: later.start + TimeDelta::days(7) };
    suite.write_from(PHONE, "1").await;
    assert_eq!(suite.asked(1).await, [takes(&offer)]);
    suite.closes(&offer, AppointmentState::Released, OfferState::Accepted).await;
    let moved = AppointmentRescheduled {
        appointment: Visit { start: offer.start, ..later.clone() }.facts(AppointmentState::Booked),
        previous: later.facts(AppointmentState::Booked),
        offer_id: offer.id.to_string(),
        ..Default::default()
    };
    suite.happens(&later, 2, &moved).await;
    suite.when_told(&later, MessageKind::Rescheduled, sent).await;
    assert_eq!(suite.taken().await.iter().filter(|text| text["direction"] == "outbound-api").count(), 2);
}

#[tokio::test]
async fn what_was_taken_in_the_last_minutes_of_the_day_is_told_at_once() {
    let suite = at_noon().await;
    suite.servers.advance_to(next(&suite, 21) - TimeDelta::minutes(10)).await;
    let visit = suite.offered().await;
    suite.servers.advance(TimeDelta::minutes(12)).await;
    suite.write_from(PHONE, "1").await;
    suite.asked(1).await;
    suite.books(&visit).await;
    suite.when_told(&visit, MessageKind::Booked, sent).await;
}

#[tokio::test]
async fn an_offer_is_turned_down_once_though_an_answer_is_lost() {
    let suite = at_noon().await;
    let visit = suite.offered().await;
    suite.others.lose_an_answer();
    suite.write_from(PHONE, "2").await;
    suite.asked(1).await;
    suite.closes(&visit, AppointmentState::Declined, OfferState::Declined).await;
    suite.servers.advance(TimeDelta::minutes(1)).await;
    let answer = suite.of_kind(MessageKind::ReplyOutcome, 1).await.remove(0);
    assert!(answer.body.starts_with("Thank you, we have noted your answer."), "{}", answer.body);
    let asked = suite.others.answered();
    assert_eq!((asked.len(), asked[0].0, asked[0]), (2, passes(&visit), asked[1]));
}

#[tokio::test]
async fn a_late_digit_is_told_so_and_never_taken_for_an_answer_to_an_earlier_reminder() {
    let suite = at_noon().await;
    let reminded = suite.visit();
    let booked =
        AppointmentBooked { appointment: reminded.facts(AppointmentState::Booked), ..Default::default() };
    suite.tell(&reminded, 1, &booked).await;
    suite.reminders_when(&reminded, |r| r.len() == 2).await;
    due(&suite, &reminded).await;
    suite.reminders_when(&reminded, |r| r[0].state() == ReminderState::Sent).await;

    let offer = Visit { patient: reminded.patient, ..suite.visit() };
    suite.others.at_phone(offer.patient);
    suite.offers_to(&offer).await;
    suite.when_told(&offer, MessageKind::WaitlistOffer, sent).await;
    suite.servers.advance(STANDS).await;
    suite.closes(&offer, AppointmentState::Expired, OfferState::Expired).await;
    for (digit, count) in [("1", 1), ("2", 2), ("2", 3)] {
        suite.others.settles(Settled::Ended);
        let answer = suite.answer_to(digit, count).await;
        assert_eq!(answer, "This time is not free any more.\nQuestions: Harbor Clinic, +12025550100");
    }
    assert_eq!(suite.asked(3).await, [takes(&offer), passes(&offer), passes(&offer)]);
    assert!(suite.others.cancelled().is_empty());
}

#[tokio::test]
async fn what_stands_in_the_way_of_an_offer_is_said_and_the_next_try_may_do() {
    let suite = at_noon().await;
    let visit = suite.offered().await;
    let link = format!("{}/visits/{}", crate::PORTAL, visit.id);
    suite.others.settles(Settled::Unpaid);
    let unpaid = suite.answer_to("1", 1).await;
    assert!(
        unpaid.starts_with(&format!("Your co-pay failed. To take this time, call us or use {link}\n")),
        "{unpaid}"
    );
    suite.others.settles(Settled::Clashes);
    let clashes = suite.answer_to("1", 2).await;
    assert!(clashes.starts_with("Another visit of yours is too close to this time. "), "{clashes}");
    suite.write_from(PHONE, "1").await;
    let asked = suite.asked(3).await;
    assert_eq!(asked, [takes(&visit); 3]);
    let names: std::collections::HashSet<_> =
        suite.others.answered().into_iter().map(|(_, name)| name).collect();
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn a_shared_phone_with_two_offers_is_asked_which() {
    let suite = at_noon().await;
    let first = suite.offered().await;
    let second = Visit { start: first.start + TimeDelta::hours(1), ..suite.visit() };
    suite.others.at_phone(second.patient);
    suite.offers_to(&second).await;
    suite.when_told(&second, MessageKind::WaitlistOffer, sent).await;

    suite.write_from(PHONE, "1").await;
    let question = suite.of_kind(MessageKind::ReplyChoice, 1).await.remove(0);
    assert!(question.body.starts_with("Which visit do you mean? Reply 1: "), "{}", question.body);
    assert!(suite.others.answered().is_empty());
    suite.write_from(PHONE, "1").await;
    assert_eq!(suite.asked(1).await, [takes(&first)]);
    suite.books(&first).await;
    suite.when_told(&first, MessageKind::Booked, sent).await;
    // Now the other's is the only one.
    suite.write_from(PHONE, "2").await;
    assert_eq!(suite.asked(2).await[1], passes(&second));
}

#[tokio::test]
async fn an_offer_told_twice_is_one_text() {
    let suite = at_noon().await;
    let visit = suite.offered().await;
    suite.offers_to(&visit).await;
    suite.closes(&visit, AppointmentState::Expired, OfferState::Expired).await;
    // One consumer applies the stream in order: when this one is told, the others are settled.
    suite.offered().await;
    assert_eq!(suite.messages(&visit).await.len(), 1);
}

#[tokio::test]
async fn an_offer_that_has_ended_is_not_told_nor_sent_again() {
    let suite = at_noon().await;
    let late = suite.visit();
    let ended = suite.servers.clock.now() - TimeDelta::seconds(1);
    let offered = WaitlistOffered {
        appointment: late.facts(AppointmentState::Offered),
        expire_time: Some(timestamp(ended)),
        ..Default::default()
    };
    suite.happens(&late, 1, &offered).await;
    suite.fail_next_text("drop").await;
    let held_up = suite.offers().await;
    let unknown = |told: &[Message]| told.iter().any(|m| m.state() == MessageState::Unknown);
    suite.when_told(&held_up, MessageKind::WaitlistOffer, unknown).await;
    suite.servers.advance(STANDS).await;
    let dropped = |told: &[Message]| told.iter().any(|m| m.state() == MessageState::Dropped);
    let told = suite.when_told(&held_up, MessageKind::WaitlistOffer, dropped).await;
    assert_eq!((told.len(), told[0].drop_reason(), told[0].attempts), (1, DropReason::TooLate, 1));
    assert!(suite.messages(&late).await.is_empty() && suite.taken().await.is_empty());
}

#[tokio::test]
async fn no_offer_leaves_by_night_though_it_would_stand_until_the_morning() {
    let suite = at_noon().await;
    suite.servers.advance_to(next(&suite, 22)).await;
    let visit = suite.visit();
    let offered = WaitlistOffered {
        appointment: visit.facts(AppointmentState::Offered),
        expire_time: Some(timestamp(next(&suite, 12))),
        ..Default::default()
    };
    suite.happens(&visit, 1, &offered).await;
    let dropped = |told: &[Message]| told.iter().any(|m| m.state() == MessageState::Dropped);
    let told = suite.when_told(&visit, MessageKind::WaitlistOffer, dropped).await;
    assert_eq!(told[0].drop_reason(), DropReason::QuietHours);
}

#[tokio::test]
async fn an_offer_by_night_goes_by_e_mail_to_whom_has_an_address() {
    let contact = Contact { email: Some("ana@mail.example".into()), ..reachable() };
    let suite = Suite::with(everyone(contact)).await;
    crate::notices::to_noon(&suite).await;
    suite.servers.advance_to(next(&suite, 22)).await;
    let visit = suite.visit();
    suite.offers_to(&visit).await;
    let told = suite.when_told(&visit, MessageKind::WaitlistOffer, sent).await;
    assert_eq!((told.len(), told[0].channel()), (1, Channel::Email));
    assert!(suite.taken().await.is_empty(), "no text");
}

#[tokio::test]
async fn who_wants_no_texts_is_not_told_of_an_offer_and_it_is_not_answered_for_them() {
    let suite = Suite::with(everyone(Contact { consented: false, ..reachable() })).await;
    crate::notices::to_noon(&suite).await;
    let visit = suite.offers().await;
    let dropped = |told: &[Message]| told.iter().any(|m| m.state() == MessageState::Dropped);
    let told = suite.when_told(&visit, MessageKind::WaitlistOffer, dropped).await;
    assert_eq!(told[0].drop_reason(), DropReason::NoConsent);
    assert!(suite.taken().await.is_empty() && suite.others.answered().is_empty());
}

#[tokio::test]
async fn offers_do_not_queue_behind_other_news() {
    const NEWS: u32 = 40;
    let suite = Suite::of(crate::World { sms_rate: 1, ..Default::default() }).await;
    crate::notices::to_noon(&suite).await;
    for _ in 0..NEWS {
        let visit = Visit { patient: PatientId::new(), ..suite.visit() };
        let booked =
            AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
        suite.happens(&visit, 1, &booked).await;
    }
    let visit = suite.offered().await;
    let bodies = suite.taken().await;
    assert!(bodies.len() < NEWS as usize, "the sender was not busy");
    assert!(suite.messages(&visit).await[0].body.contains("free "));
}

//! The state machine against a model of the provider: whatever is lost, repeated or late, no money is lost, doubled or left
//! reserved.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use kit::ids::{AppointmentId, ClinicId, PatientId, PaymentMethodId, ServiceTypeId};
use proptest::prelude::*;

use super::charge::{Charge, Happened, Standing, State, Step};
use super::ledger::{self, Account};
use super::visit::{Ended, Ending, Visit};

const COPAY: i64 = 2_500;
/// How long an authorization lives.
const LIFE: TimeDelta = TimeDelta::hours(114);

/// How the card of an attempt answers.
#[derive(Clone, Copy, Debug)]
enum Card {
    Good,
    Declined,
    Asks,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Move {
    /// Someone takes the co-pay's next step; `answered` = the provider's answer arrives.
    Drive { answered: bool },
    /// Someone takes the fee's next step.
    DriveFee { answered: bool },
    /// The patient tries another card, where that is allowed.
    TryCard(Card),
    /// The patient confirms, or fails to; or pays what was declined after all.
    Confirm(bool),
    /// The visit or its hold ends; told any number of times.
    End,
    /// The patient comes after the visit was closed as missed, and is seen.
    Come,
    /// Time passes, and authorizations die of age.
    Pass { hours: i64 },
    /// A booked visit is moved to so many days from now.
    Reschedule { days: i64 },
}

/// The provider's own record: payments by idempotency key.
#[derive(Default)]
struct Provider {
    payments: HashMap<String, (Standing, Card)>,
}

impl Provider {
    fn pay(&mut self, key: &str, card: Card, away: bool, good: Standing) -> Standing {
        let refused = |code: &str| Standing::Refused { code: code.into() };
        let first = match card {
            Card::Good => good,
            Card::Declined => refused("insufficient_funds"),
            Card::Asks if away => refused("authentication_required"),
            Card::Asks => Standing::ActionRequired { client_secret: "secret".into() },
        };
        self.payments.entry(key.to_owned()).or_insert((first, card)).0.clone()
    }

    fn change(&mut self, key: &str, to: Standing) -> Standing {
        let payment = &mut self.payments.get_mut(key).expect("only payments that exist are changed").0;
        let legal = match (&*payment, &to) {
            (Standing::Reserved { amount: held, .. }, Standing::Taken { amount }) => amount <= held,
            (Standing::Taken { .. } | Standing::Released, _) => false,
            (_, Standing::Released) => true,
            (Standing::ActionRequired { .. } | Standing::Refused { .. }, _) => true,
            _ => false,
        };
        if legal {
            *payment = to;
        }
        payment.clone()
    }

    fn lapse(&mut self, now: DateTime<Utc>) {
        for (standing, _) in self.payments.values_mut() {
            if matches!(standing, Standing::Reserved { capture_before: Some(end), .. } if *end <= now) {
                *standing = Standing::Released;
            }
        }
    }

    fn reservations(&self) -> usize {
        self.payments.values().filter(|(s, _)| matches!(s, Standing::Reserved { .. })).count()
    }

    fn taken(&self) -> i64 {
        self.payments
            .values()
            .map(|(s, _)| if let Standing::Taken { amount } = s { *amount } else { 0 })
            .sum()
    }
}

struct World {
    now: DateTime<Utc>,
    visit: Visit,
    charge: Charge,
    fee: Option<Charge>,
    card: Card,
    away: bool,
    replaces: Option<String>,
    provider: Provider,
    told: Vec<Happened>,
    balances: HashMap<Account, i64>,
}

impl World {
    fn new(card: Card) -> Self {
        let currency = "USD".parse().expect("a currency");
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let mut charge = Charge::copay(AppointmentId::new(), COPAY, currency, now);
        charge.ask(PaymentMethodId::new());
        let visit = Visit {
            appointment: charge.appointment,
            version: 0,
            patient: PatientId::new(),
            clinic: ClinicId::new(),
            service_type: ServiceTypeId::new(),
            start: now + TimeDelta::days(10),
            ended: None,
            fee_reversed: false,
        };
        Self {
            now,
            visit,
            charge,
            fee: None,
            card,
            away: false,
            replaces: None,
            provider: Provider::default(),
            told: vec![],
            balances: HashMap::new(),
        }
    }

    fn drive(&mut self, answered: bool) {
        if self.charge.renews(&self.visit, self.now) {
            self.replaces = self.charge.ask(PaymentMethodId::new());
            self.away = true;
        }
        let Some(step) = self.charge.step(self.now) else { return };
        let key = format!("copay-{}", self.charge.attempt);
        let standing = match step {
            Step::Authorize => {
                if let Some(old) = &self.replaces {
                    self.provider.change(old, Standing::Released);
                }
                self.provider.pay(&key, self.card, self.away, reserved(self.now))
            }
            Step::Capture(amount) => {
                let in_time = match self.provider.payments[&key].0 {
                    Standing::Reserved { capture_before: Some(end), .. } => self.now < end,
                    // Taken before, and the answer was lost.
                    _ => self.provider.taken() > 0,
                };
                assert!(in_time, "a capture too late: {:?}", self.charge);
                self.provider.change(&key, Standing::Taken { amount })
            }
            Step::Cancel => self.provider.change(&key, Standing::Released),
            Step::LookUp => self.provider.payments[&key].0.clone(),
            Step::Charge(_) => unreachable!("a co-pay is reserved first"),
        };
        if answered {
            self.charge.provider_reference = Some(key);
            let happened = self.charge.learn(&standing, self.visit.ended, self.now);
            self.conclude(happened);
        }
    }

    fn drive_fee(&mut self, answered: bool) {
        let Some(fee) = self.fee.as_mut() else { return };
        let Some(Step::Charge(amount)) = fee.step(self.now) else { return };
        let standing = self.provider.pay("fee-1", self.card, true, Standing::Taken { amount });
        if answered {
            fee.provider_reference = Some("fee-1".into());
            let happened = fee.learn(&standing, self.visit.ended, self.now);
            post(&mut self.balances, fee, &happened);
        }
    }

    fn conclude(&mut self, happened: Vec<Happened>) {
        let drawn = happened.iter().find_map(|h| {
            if let Happened::Voided { drawn, payment, .. } = h {
                Some((*drawn, payment.clone()))
            } else {
                None
            }
        });
        post(&mut self.balances, &self.charge, &happened);
        self.told.extend(happened);
        if let Some(ended) = self.visit.ended.filter(|ended| ended.fee > 0)
            && self.charge.state != State::Authorizing
            && self.fee.is_none()
        {
            let Charge { appointment, currency, created_at, .. } = self.charge;
            self.fee = Some(Charge::fee(appointment, ended.fee, currency, created_at));
        }
        if let Some(fee) = self.fee.as_mut().filter(|fee| fee.awaits_copay())
            && self.charge.gives_no_more()
        {
            let (drawn, payment) = drawn.unwrap_or_default();
            if fee.take_from_copay(drawn, payment) {
                fee.ask(PaymentMethodId::new());
            } else {
                let happened = fee.settle_fee();
                post(&mut self.balances, fee, &happened);
            }
        }
    }

    fn apply(&mut self, next: &Move, end: Ended) {
        match next {
            Move::Drive { answered } => self.drive(*answered),
            Move::DriveFee { answered } => self.drive_fee(*answered),
            Move::TryCard(card) => {
                let open = matches!(self.charge.state, State::Declined | State::RequiresAction);
                if open && self.visit.ended.is_none() {
                    self.replaces = self.charge.ask(PaymentMethodId::new());
                    self.card = *card;
                    self.away = false;
                }
            }
            Move::Confirm(good) => {
                let key = format!("copay-{}", self.charge.attempt);
                match self.provider.payments.get(&key).map(|(standing, _)| standing) {
                    Some(Standing::ActionRequired { .. }) if !*good => {
                        let refused = Standing::Refused { code: "authentication_required".into() };
                        self.provider.change(&key, refused);
                    }
                    // With the patient away nobody has the secret that this takes.
                    Some(Standing::ActionRequired { .. } | Standing::Refused { .. })
                        if *good && !self.away =>
                    {
                        self.provider.change(&key, reserved(self.now));
                    }
                    _ => {}
                }
            }
            Move::End => {
                // Only what was authorized is ever booked, so only that can be attended, missed or cancelled.
                let unbooked = self.charge.authorized_at.is_none();
                let end = if unbooked { Ended { how: Ending::HoldEnded, fee: 0 } } else { end };
                let ended = *self.visit.ended.get_or_insert(end);
                let happened = self.charge.follow(ended);
                self.conclude(happened);
            }
            Move::Come => {
                if let Some(ended) = self.visit.ended.as_mut().filter(|ended| ended.how == Ending::NoShow) {
                    *ended = Ended { how: Ending::Attended, fee: 0 };
                    let happened = self.charge.follow(*ended);
                    self.conclude(happened);
                }
            }
            Move::Pass { hours } => {
                self.now += TimeDelta::hours(*hours);
                self.provider.lapse(self.now);
            }
            Move::Reschedule { days } => {
                if self.visit.ended.is_none() && self.charge.authorized_at.is_some() {
                    self.visit.start = self.now + TimeDelta::days(*days);
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        for charge in [Some(&self.charge), self.fee.as_ref()].into_iter().flatten() {
            assert!(charge.captured + charge.owed <= charge.amount, "{charge:?}");
            assert!(charge.client_secret.is_none() || charge.state == State::RequiresAction, "{charge:?}");
        }
        assert!(self.provider.reservations() <= 1, "two reservations live at once");
        for once in [
            self.times(|h| matches!(h, Happened::Captured { .. })),
            self.times(|h| matches!(h, Happened::Voided { .. })),
            self.times(|h| matches!(h, Happened::Owed)),
        ] {
            assert!(once <= 1, "{:?}", self.told);
        }
        for pair in self.told.windows(2) {
            let lapsed_twice = matches!(pair, [Happened::Lapsed { .. }, Happened::Lapsed { .. }]);
            assert!(!lapsed_twice, "a lapse that was neither renewed nor the end: {:?}", self.told);
        }
    }

    fn times(&self, what: impl Fn(&Happened) -> bool) -> usize {
        self.told.iter().filter(|h| what(h)).count()
    }
}

fn reserved(now: DateTime<Utc>) -> Standing {
    Standing::Reserved { amount: COPAY, capture_before: Some(now + LIFE) }
}

fn post(balances: &mut HashMap<Account, i64>, charge: &Charge, happened: &[Happened]) {
    for entry in happened.iter().flat_map(|h| ledger::entries(charge, h)) {
        *balances.entry(entry.debit).or_default() += entry.amount;
        *balances.entry(entry.credit).or_default() -= entry.amount;
    }
}

fn cards() -> impl Strategy<Value = Card> {
    prop_oneof![Just(Card::Good), Just(Card::Declined), Just(Card::Asks)]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => any::<bool>().prop_map(|answered| Move::Drive { answered }),
        2 => any::<bool>().prop_map(|answered| Move::DriveFee { answered }),
        1 => cards().prop_map(Move::TryCard),
        1 => any::<bool>().prop_map(Move::Confirm),
        1 => Just(Move::End),
        1 => Just(Move::Come),
        3 => (1..120_i64).prop_map(|hours| Move::Pass { hours }),
        1 => (0..20_i64).prop_map(|days| Move::Reschedule { days }),
    ];
    prop::collection::vec(one, 0..32)
}

fn endings() -> impl Strategy<Value = Ended> {
    let fee = prop_oneof![Just(0), Just(1_000), Just(COPAY), Just(COPAY + 1), Just(4_000)];
    prop_oneof![
        Just(Ended { how: Ending::Cancelled, fee: 0 }),
        Just(Ended { how: Ending::Attended, fee: 0 }),
        fee.clone().prop_map(|fee| Ended { how: Ending::CancelledLate, fee }),
        fee.prop_map(|fee| Ended { how: Ending::NoShow, fee }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_order_of_answers_and_endings_settles_to_the_cent(card in cards(), moves in moves(), end in endings()) {
        const ENOUGH: usize = 8;
        let mut world = World::new(card);
        for next in &moves {
            world.apply(next, end);
        }
        world.apply(&Move::End, end);
        for _ in 0..ENOUGH {
            world.apply(&Move::Drive { answered: true }, end);
            world.apply(&Move::DriveFee { answered: true }, end);
        }
        prop_assert_eq!(world.provider.reservations(), 0, "a reservation outlived its visit");
        prop_assert!(!world.charge.pending(), "{:?}", world.charge);
        prop_assert!(!world.charge.renews(&world.visit, world.now), "{:?}", world.charge);
        let fee = world.fee.as_ref();
        prop_assert!(fee.is_none_or(|fee| fee.state == State::Captured), "{:?}", fee);
        let captured = world.charge.captured + fee.map_or(0, |f| f.captured);
        let owed = world.charge.owed + fee.map_or(0, |f| f.owed);
        prop_assert_eq!(captured, world.provider.taken());
        let balance = |account| world.balances.get(&account).copied().unwrap_or(0);
        prop_assert_eq!(balance(Account::Provider), captured);
        prop_assert_eq!(balance(Account::Receivable), owed);
        prop_assert_eq!(world.balances.values().sum::<i64>(), 0);
        if let Some(ended) = world.visit.ended.filter(|ended| ended.fee > 0) {
            prop_assert_eq!(fee.map_or(0, |f| f.captured + f.owed), ended.fee);
        }
        if world.visit.ended.is_some_and(|e| e.how == Ending::Attended) {
            prop_assert_eq!(world.charge.captured + world.charge.owed, COPAY);
        }
    }

    #[test]
    fn a_booked_visit_ends_the_same_in_whatever_order_and_however_often_news_of_its_end_comes(
        card in cards(),
        answers in prop::collection::vec((0..3, any::<bool>()), 0..16),
        end in endings(),
    ) {
        const ENOUGH: usize = 4;
        let settle = |world: &mut World| {
            for _ in 0..ENOUGH {
                world.apply(&Move::End, end);
                world.apply(&Move::Drive { answered: true }, end);
                world.apply(&Move::DriveFee { answered: true }, end);
            }
            let fee = world.fee.as_ref().map(|fee| (fee.state, fee.captured, fee.drawn_from_copay, fee.owed));
            let Charge { state, captured, owed, void_cause, version: _, .. } = world.charge;
            (state, captured, owed, void_cause, fee, world.told.clone())
        };
        let booked = || {
            let mut world = World::new(Card::Good);
            world.apply(&Move::Drive { answered: true }, end);
            world.card = card;
            world
        };
        let mut straight = booked();
        let mut shuffled = booked();
        for (what, answered) in answers {
            let next = match what {
                0 => Move::Drive { answered },
                1 => Move::DriveFee { answered },
                _ => Move::End,
            };
            shuffled.apply(&next, end);
        }
        prop_assert_eq!(settle(&mut shuffled), settle(&mut straight));
    }
}

//! The state machine against a model of the provider: whatever is lost, repeated or late, no money is lost, doubled or left
//! reserved.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, PaymentMethodId};
use proptest::prelude::*;

use super::charge::{Charge, Happened, Standing, State, Step};
use super::ledger::{self, Account};
use super::visit::{Ended, Ending};

const COPAY: i64 = 2_500;

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
    /// Someone takes the charge's next step; `answered` = the provider's answer arrives.
    Drive { answered: bool },
    /// The patient tries another card, where that is allowed.
    TryCard(Card),
    /// The patient confirms, or fails to.
    Confirm(bool),
    /// The visit or its hold ends; told any number of times.
    End,
    /// The authorization dies of age.
    Lapse,
}

/// The provider's own record: payments by idempotency key.
#[derive(Default)]
struct Provider {
    payments: HashMap<String, (Standing, Card)>,
}

fn reserved() -> Standing {
    Standing::Reserved { amount: COPAY, capture_before: None }
}

impl Provider {
    fn authorize(&mut self, key: &str, card: Card) -> Standing {
        let first = match card {
            Card::Good => reserved(),
            Card::Declined => Standing::Refused { code: "insufficient_funds".into() },
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
            (Standing::ActionRequired { .. }, _) => true,
            _ => false,
        };
        if legal {
            *payment = to;
        }
        payment.clone()
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
    charge: Charge,
    fee: Option<Charge>,
    card: Card,
    replaces: Option<String>,
    provider: Provider,
    ended: Option<Ended>,
    told: Vec<Happened>,
    balances: HashMap<Account, i64>,
}

impl World {
    fn new(card: Card) -> Self {
        let currency = "USD".parse().expect("a currency");
        let mut charge = Charge::copay(AppointmentId::new(), COPAY, currency, DateTime::UNIX_EPOCH);
        charge.ask(PaymentMethodId::new());
        Self {
            charge,
            fee: None,
            card,
            replaces: None,
            provider: Provider::default(),
            ended: None,
            told: vec![],
            balances: HashMap::new(),
        }
    }

    fn drive(&mut self, answered: bool) {
        let Some(step) = self.charge.step() else { return };
        let key = format!("attempt-{}", self.charge.attempt);
        let standing = match step {
            Step::Authorize => {
                if let Some(old) = &self.replaces {
                    self.provider.change(old, Standing::Released);
                }
                self.provider.authorize(&key, self.card)
            }
            Step::Capture(amount) => self.provider.change(&key, Standing::Taken { amount }),
            Step::Cancel => self.provider.change(&key, Standing::Released),
            Step::LookUp => self.provider.payments[&key].0.clone(),
        };
        if answered {
            self.charge.provider_reference = Some(key);
            let happened = self.charge.learn(&standing, self.ended, DateTime::<Utc>::UNIX_EPOCH);
            self.conclude(happened);
        }
    }

    fn conclude(&mut self, happened: Vec<Happened>) {
        let drawn = happened
            .iter()
            .find_map(|h| if let Happened::Voided { drawn, .. } = h { Some(*drawn) } else { None });
        post(&mut self.balances, &self.charge, &happened);
        self.told.extend(happened);
        let Some(ended) = self.ended.filter(|ended| ended.fee > 0) else { return };
        if self.charge.state != State::Authorizing && self.fee.is_none() {
            let Charge { appointment, currency, created_at, .. } = self.charge;
            self.fee = Some(Charge::fee(Some(&self.charge), appointment, ended.fee, currency, created_at));
        }
        if let Some(fee) = self.fee.as_mut().filter(|fee| fee.state == State::Capturing)
            && self.charge.gives_no_more()
        {
            let happened = fee.settle_fee(drawn.unwrap_or(0));
            post(&mut self.balances, fee, &happened);
        }
    }

    fn apply(&mut self, next: &Move, end: Ended) {
        match next {
            Move::Drive { answered } => self.drive(*answered),
            Move::TryCard(card) => {
                let open = matches!(self.charge.state, State::Declined | State::RequiresAction);
                if open && self.ended.is_none() {
                    self.replaces = self.charge.ask(PaymentMethodId::new());
                    self.card = *card;
                }
            }
            Move::Confirm(good) => {
                let key = format!("attempt-{}", self.charge.attempt);
                let asks =
                    self.provider.payments.get(&key).is_some_and(|(_, card)| matches!(card, Card::Asks));
                if asks && matches!(self.provider.payments[&key].0, Standing::ActionRequired { .. }) {
                    let refused = Standing::Refused { code: "authentication_required".into() };
                    self.provider.change(&key, if *good { reserved() } else { refused });
                }
            }
            Move::End => {
                // Only what was authorized is ever booked, so only that can be attended, missed or cancelled.
                let unbooked = !self.told.contains(&Happened::Authorized);
                let end = if unbooked { Ended { how: Ending::HoldEnded, fee: 0 } } else { end };
                let ended = *self.ended.get_or_insert(end);
                let happened = self.charge.follow(ended);
                self.conclude(happened);
            }
            Move::Lapse => {
                for (standing, _) in self.provider.payments.values_mut() {
                    if matches!(standing, Standing::Reserved { .. }) {
                        *standing = Standing::Released;
                    }
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
            self.times(|h| matches!(h, Happened::Captured)),
            self.times(|h| matches!(h, Happened::Voided { .. })),
        ] {
            assert!(once <= 1, "{:?}", self.told);
        }
    }

    fn times(&self, what: impl Fn(&Happened) -> bool) -> usize {
        self.told.iter().filter(|h| what(h)).count()
    }
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
        4 => any::<bool>().prop_map(|answered| Move::Drive { answered }),
        1 => cards().prop_map(Move::TryCard),
        1 => any::<bool>().prop_map(Move::Confirm),
        1 => Just(Move::End),
        1 => Just(Move::Lapse),
    ];
    prop::collection::vec(one, 0..24)
}

fn endings() -> impl Strategy<Value = Ended> {
    let fee = prop_oneof![Just(0), Just(1_000), Just(COPAY), Just(4_000)];
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
        const ENOUGH: usize = 4;
        let mut world = World::new(card);
        for next in &moves {
            world.apply(next, end);
        }
        world.apply(&Move::End, end);
        for _ in 0..ENOUGH {
            world.apply(&Move::Drive { answered: true }, end);
        }
        prop_assert_eq!(world.provider.reservations(), 0, "a reservation outlived its visit");
        prop_assert!(!world.charge.pending(), "{:?}", world.charge);
        let fee = world.fee.as_ref();
        let captured = world.charge.captured + fee.map_or(0, |f| f.captured);
        let owed = world.charge.owed + fee.map_or(0, |f| f.owed);
        prop_assert_eq!(captured, world.provider.taken());
        let balance = |account| world.balances.get(&account).copied().unwrap_or(0);
        prop_assert_eq!(balance(Account::Provider), captured);
        prop_assert_eq!(balance(Account::Receivable), owed);
        prop_assert_eq!(world.balances.values().sum::<i64>(), 0);
        if let Some(ended) = world.ended.filter(|ended| ended.fee > 0) {
            prop_assert_eq!(fee.map_or(0, |f| f.captured + f.owed), ended.fee);
        }
        if world.ended.is_some_and(|e| e.how == Ending::Attended) {
            prop_assert_eq!(world.charge.captured + world.charge.owed, COPAY);
        }
    }
}

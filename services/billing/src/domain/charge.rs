//! A charge's life.
//!
//! ```text
//! COPAY: AUTHORIZING -> AUTHORIZED -> CAPTURING -> CAPTURED -> REFUNDED
//!            |             |-> VOIDING -> VOIDED
//!            |             |-> AUTHORIZING (renewed)
//!            |             `-> LAPSED -> AUTHORIZING (renewed) | VOIDED -> LAPSED (the patient came after all)
//!            |-> REQUIRES_ACTION -> AUTHORIZED | DECLINED | VOIDING | AUTHORIZING (another attempt)
//!            `-> DECLINED -> AUTHORIZING (another attempt) | VOIDING
//! NO_SHOW_FEE: CAPTURING -> CAPTURED -> REFUNDED | VOIDED (nothing was taken, and the debt is taken back)
//! ```
//!
//! Two things move it: what the provider says of its newest payment ([`Charge::learn`]) and how its visit ended
//! ([`Charge::follow`]). Either may come first and any number of times; the end is the same. When a reservation is made anew
//! stands in [`super::renewal`], how a fee is settled in [`super::missed`].

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ChargeId, PaymentMethodId};

use super::money::Currency;
use super::refund::Cause;
use super::visit::Ended;
use super::words;

words! {
    /// What a charge is for.
    Kind {
        /// The visit itself.
        Copay = "COPAY",
        /// A late cancellation or a missed visit.
        NoShowFee = "NO_SHOW_FEE",
    }
}

words! {
    /// How far a charge is.
    State {
        /// The provider is being asked, or its answer is not known yet.
        Authorizing = "AUTHORIZING",
        /// Reserved on the card.
        Authorized = "AUTHORIZED",
        /// The bank wants the patient to confirm.
        RequiresAction = "REQUIRES_ACTION",
        /// Refused; another attempt may follow.
        Declined = "DECLINED",
        /// The provider is being asked to take the money.
        Capturing = "CAPTURING",
        /// Taken.
        Captured = "CAPTURED",
        /// The provider is being asked to release the reservation.
        Voiding = "VOIDING",
        /// Nothing is due and nothing is reserved, unless the patient comes after all.
        Voided = "VOIDED",
        /// The reservation ended before it could be captured.
        Lapsed = "LAPSED",
        /// All of it was given back.
        Refunded = "REFUNDED",
    }
}

words! {
    /// Why a co-pay is no longer due.
    VoidCause {
        /// The hold ended without a booking.
        HoldEnded = "HOLD_ENDED",
        /// Called off in time, or by the clinic.
        Cancelled = "CANCELLED",
        /// Called off late.
        CancelledLate = "CANCELLED_LATE",
        /// The patient did not come.
        NoShow = "NO_SHOW",
        /// A reconciliation found no booked visit behind it.
        Reconciliation = "RECONCILIATION",
    }
}

/// How a payment stands at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// `amount` is reserved.
    Reserved {
        /// Minor units.
        amount: i64,
        /// Until when it may be taken, as the provider says.
        capture_before: Option<DateTime<Utc>>,
    },
    /// The patient is to confirm, with this secret.
    ActionRequired {
        /// For the provider's page element.
        client_secret: String,
    },
    /// The card said no.
    Refused {
        /// Why, in the provider's words.
        code: String,
    },
    /// `amount` was taken, and the rest of the reservation released.
    Taken {
        /// Minor units.
        amount: i64,
    },
    /// Nothing is reserved any more.
    Released,
}

/// What the provider is to be asked next about a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reserve the amount, as the newest attempt says.
    Authorize,
    /// Take this much at once, as the newest attempt says.
    Charge(i64),
    /// Take this much and release the rest.
    Capture(i64),
    /// Release the reservation.
    Cancel,
    /// Tell how the newest payment stands.
    LookUp,
}

/// What is told of a charge, and what the ledger is kept by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Reserved on the card.
    Authorized {
        /// It had been reserved before.
        renewal: bool,
    },
    /// Could not be reserved: declined, or to be confirmed by the patient.
    NotAuthorized {
        /// It had been reserved before.
        renewal: bool,
    },
    /// Taken.
    Captured {
        /// The part that was owed already, minor units.
        debt: i64,
    },
    /// No longer due, and its reservation gone.
    Voided {
        /// Given back to the card, minor units.
        released: i64,
        /// Taken for the visit's fee, minor units.
        drawn: i64,
        /// The payment it was taken of.
        payment: Option<String>,
    },
    /// The reservation ended on its own.
    Lapsed {
        /// What was reserved, minor units.
        amount: i64,
        /// When it ended.
        at: DateTime<Utc>,
    },
    /// The fee is settled as far as the card allowed.
    FeeCharged,
    /// Something is due that the card did not give.
    Owed,
    /// Money was given back, or a debt was.
    Refunded {
        /// Given back to the card, minor units.
        amount: i64,
        /// No longer owed, minor units.
        forgiven: i64,
        /// Why.
        cause: Cause,
    },
}

/// A co-pay or a no-show fee. Amounts in minor units of `currency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Which.
    pub id: ChargeId,
    /// The visit.
    pub appointment: AppointmentId,
    /// What for.
    pub kind: Kind,
    /// How far it is.
    pub state: State,
    /// Of all its amounts.
    pub currency: Currency,
    /// The whole charge.
    pub amount: i64,
    /// Reserved, and neither taken nor released.
    pub authorized: i64,
    /// Taken for this charge.
    pub captured: i64,
    /// The part of a fee's `captured` that came out of the co-pay's authorization.
    pub drawn_from_copay: i64,
    /// The co-pay's payment that it came out of.
    pub drawn_reference: Option<String>,
    /// Given back.
    pub refunded: i64,
    /// Due and not taken.
    pub owed: i64,
    /// What the visit's fee takes of this co-pay's authorization when the rest is released.
    pub draw: i64,
    /// The card used last.
    pub payment_method: Option<PaymentMethodId>,
    /// The provider's newest payment of this charge's own. A fee has none when it took no more than the co-pay's payment gave.
    pub provider_reference: Option<String>,
    /// Until when the reservation may be taken.
    pub capture_before: Option<DateTime<Utc>>,
    /// When it was last learned to be reserved; `None` = it never was.
    pub authorized_at: Option<DateTime<Utc>>,
    /// Why the last attempt failed.
    pub decline_code: Option<String>,
    /// Lets the patient's browser confirm.
    pub client_secret: Option<String>,
    /// Why it is no longer due.
    pub void_cause: Option<VoidCause>,
    /// Number of the newest attempt; 0 = the provider was never asked.
    pub attempt: i32,
    /// Events told.
    pub version: i64,
    /// Changes made: the etag.
    pub revision: i64,
    /// Looks taken since the last change.
    pub tries: i32,
    /// When made.
    pub created_at: DateTime<Utc>,
    /// When last changed.
    pub updated_at: DateTime<Utc>,
}

impl Charge {
    /// A co-pay for which nobody was asked yet; [`Charge::ask`] follows.
    pub fn copay(appointment: AppointmentId, amount: i64, currency: Currency, now: DateTime<Utc>) -> Self {
        Self::new(appointment, Kind::Copay, State::Authorizing, amount, currency, now)
    }

    /// The fee of a visit that was cancelled late or missed.
    pub fn fee(appointment: AppointmentId, amount: i64, currency: Currency, now: DateTime<Utc>) -> Self {
        Self::new(appointment, Kind::NoShowFee, State::Capturing, amount, currency, now)
    }

    fn new(
        appointment: AppointmentId,
        kind: Kind,
        state: State,
        amount: i64,
        currency: Currency,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: ChargeId::new(),
            appointment,
            kind,
            state,
            currency,
            amount,
            authorized: 0,
            captured: 0,
            drawn_from_copay: 0,
            drawn_reference: None,
            refunded: 0,
            owed: 0,
            draw: 0,
            payment_method: None,
            provider_reference: None,
            capture_before: None,
            authorized_at: None,
            decline_code: None,
            client_secret: None,
            void_cause: None,
            attempt: 0,
            version: 0,
            revision: 0,
            tries: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// Begins another attempt, with `card`. Answers the payment of the attempt before, which must be cancelled before the
    /// provider is asked, so that no two reservations ever live at once.
    pub fn ask(&mut self, card: PaymentMethodId) -> Option<String> {
        if self.kind == Kind::Copay {
            self.leave_reservation(State::Authorizing);
        }
        self.attempt += 1;
        self.payment_method = Some(card);
        self.decline_code = None;
        self.provider_reference.take()
    }

    /// What the provider is to be asked next, `None` = nothing.
    pub fn step(&self, now: DateTime<Utc>) -> Option<Step> {
        match self.state {
            State::Capturing if self.kind == Kind::NoShowFee => {
                (self.attempt > 0).then(|| Step::Charge(self.uncollected()))
            }
            State::Authorizing => Some(Step::Authorize),
            State::Capturing if self.too_late(now) => Some(Step::LookUp),
            State::Capturing => Some(Step::Capture(self.authorized)),
            State::Voiding if self.draw > 0 && !self.too_late(now) => Some(Step::Capture(self.draw)),
            State::Voiding => Some(Step::Cancel),
            State::Authorized | State::RequiresAction | State::Declined => {
                self.provider_reference.is_some().then_some(Step::LookUp)
            }
            State::Captured | State::Voided | State::Lapsed | State::Refunded => None,
        }
    }

    /// Whether a worker must keep asking: the charge is on its way and nobody else will say how it went.
    pub fn pending(&self) -> bool {
        match self.state {
            State::Capturing if self.kind == Kind::NoShowFee => self.attempt > 0,
            State::Authorizing | State::Capturing | State::Voiding | State::RequiresAction => true,
            State::Authorized
            | State::Declined
            | State::Captured
            | State::Voided
            | State::Lapsed
            | State::Refunded => false,
        }
    }

    /// Takes over how the newest payment stands. `ended` = how the visit ended, if it has.
    pub fn learn(&mut self, standing: &Standing, ended: Option<Ended>, now: DateTime<Utc>) -> Vec<Happened> {
        use State::{
            Authorized, Authorizing, Captured, Capturing, Declined, Lapsed, Refunded, RequiresAction,
        };
        use State::{Voided, Voiding};
        if self.kind == Kind::NoShowFee {
            return self.learn_fee(standing);
        }
        match (self.state, standing) {
            (Captured | Voided | Lapsed | Refunded, _) => vec![],
            (Voiding, Standing::Taken { amount }) if self.draw > 0 => self.voided(*amount, ended),
            // Taken, by whomever: the ledger says what is true, also of a co-pay that was to be voided or is owed.
            (
                Authorizing | Authorized | RequiresAction | Declined | Capturing | Voiding,
                Standing::Taken { amount },
            ) => {
                let debt = std::mem::take(&mut self.owed);
                self.captured = *amount;
                self.leave_reservation(Captured);
                vec![Happened::Captured { debt }]
            }
            (Voiding, Standing::Released) => self.voided(0, ended),
            (
                Voiding,
                Standing::Reserved { .. } | Standing::ActionRequired { .. } | Standing::Refused { .. },
            ) => vec![],
            // What may no longer be captured is no reservation, whatever the provider still calls it.
            (Authorized | Capturing, Standing::Reserved { capture_before, .. })
                if capture_before.is_none_or(|end| now < end) =>
            {
                self.capture_before = *capture_before;
                vec![]
            }
            (
                Authorized | Capturing,
                Standing::Reserved { .. }
                | Standing::Released
                | Standing::Refused { .. }
                | Standing::ActionRequired { .. },
            ) => {
                let at = self.capture_before.filter(|end| *end <= now).unwrap_or(now);
                let mut happened = vec![Happened::Lapsed { amount: self.authorized, at }];
                self.leave_reservation(Lapsed);
                happened.extend(ended.into_iter().flat_map(|ended| self.follow(ended)));
                happened
            }
            (Authorizing | RequiresAction | Declined, Standing::Reserved { amount, capture_before }) => {
                let renewal = self.authorized_at.is_some();
                self.authorized = *amount;
                self.capture_before = *capture_before;
                self.authorized_at = Some(now);
                self.decline_code = None;
                self.enter(Authorized, Happened::Authorized { renewal }, ended)
            }
            (Authorizing, Standing::ActionRequired { client_secret }) => {
                self.client_secret = Some(client_secret.clone());
                self.state = RequiresAction;
                let renewal = self.authorized_at.is_some();
                self.tell(Happened::NotAuthorized { renewal }, ended)
            }
            (RequiresAction | Declined, Standing::ActionRequired { .. }) => vec![],
            (Authorizing | RequiresAction, Standing::Refused { code }) => self.declined(code, ended),
            (Authorizing | RequiresAction, Standing::Released) => self.declined("canceled", ended),
            (Declined, Standing::Refused { .. } | Standing::Released) => vec![],
        }
    }

    /// Follows the end of the visit as far as can be done now; an answer still awaited makes [`Charge::learn`] do the rest.
    pub fn follow(&mut self, ended: Ended) -> Vec<Happened> {
        match (self.state, ended.how.voids()) {
            (State::Authorized, None) => {
                self.state = State::Capturing;
                vec![]
            }
            (State::Declined, None) if self.owed == 0 => {
                self.owed = self.amount;
                vec![Happened::Owed]
            }
            (State::Authorized | State::RequiresAction | State::Declined | State::Lapsed, Some(cause)) => {
                self.void(cause, ended.fee)
            }
            // The patient came after the visit was closed as missed: the co-pay is due after all. What was reserved is gone, so
            // it is asked for anew, as what has lapsed is.
            (State::Voided, None) => {
                self.void_cause = None;
                self.provider_reference = None;
                self.state = State::Lapsed;
                vec![]
            }
            // Due now: see `renewal`. What the card then says ends it.
            (State::Lapsed | State::RequiresAction, None) => vec![],
            (
                State::Declined
                | State::Authorizing
                | State::Capturing
                | State::Captured
                | State::Voiding
                | State::Refunded,
                _,
            )
            | (State::Voided, Some(_)) => vec![],
        }
    }

    /// Releases what is reserved, or may yet be, but for what the visit's `fee` takes.
    pub fn void(&mut self, cause: VoidCause, fee: i64) -> Vec<Happened> {
        self.void_cause = Some(cause);
        self.draw = fee.min(self.authorized);
        self.client_secret = None;
        // What has lapsed, or was never made at the provider, needs no release.
        if self.state == State::Lapsed || self.provider_reference.is_none() {
            return self.voided(0, None);
        }
        self.state = State::Voiding;
        vec![]
    }

    /// Whether a fee can be settled now: this co-pay will give it nothing more.
    pub fn gives_no_more(&self) -> bool {
        match self.state {
            State::Authorizing
            | State::Authorized
            | State::RequiresAction
            | State::Declined
            | State::Capturing
            | State::Voiding => false,
            State::Captured | State::Voided | State::Lapsed | State::Refunded => true,
        }
    }

    fn declined(&mut self, code: &str, ended: Option<Ended>) -> Vec<Happened> {
        self.decline_code = Some(code.to_owned());
        let renewal = self.authorized_at.is_some();
        self.enter(State::Declined, Happened::NotAuthorized { renewal }, ended)
    }

    fn enter(&mut self, state: State, happened: Happened, ended: Option<Ended>) -> Vec<Happened> {
        self.client_secret = None;
        self.state = state;
        self.tell(happened, ended)
    }

    /// A dead hold's authorization is nobody's news: it goes at once.
    fn tell(&mut self, happened: Happened, ended: Option<Ended>) -> Vec<Happened> {
        let Some(ended) = ended else { return vec![happened] };
        let news = ended.how.voids().is_none().then_some(happened);
        news.into_iter().chain(self.follow(ended)).collect()
    }

    fn voided(&mut self, drawn: i64, ended: Option<Ended>) -> Vec<Happened> {
        let released = (self.authorized - drawn).max(0);
        self.leave_reservation(State::Voided);
        let payment = self.provider_reference.clone();
        let mut happened = vec![Happened::Voided { released, drawn, payment }];
        happened.extend(ended.into_iter().flat_map(|ended| self.follow(ended)));
        happened
    }

    fn leave_reservation(&mut self, state: State) {
        self.state = state;
        self.authorized = 0;
        self.draw = 0;
        self.capture_before = None;
        self.client_secret = None;
    }
}

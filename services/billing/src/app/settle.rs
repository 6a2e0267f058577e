//! Asking the provider for one charge, and taking over what it says.
//!
//! The order is always: write down what will be asked (state, attempt, key), commit, ask, then compare-and-set the outcome with
//! its events and ledger entries in one transaction. So whatever dies in between, the row says what to ask again, and the same
//! key keeps it from happening twice.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kit::ids::ChargeId;
use rand::RngExt as _;
use sqlx::PgConnection;

use super::App;
use crate::domain::charge::{Charge, Happened, Kind, Standing, State, Step};
use crate::domain::ledger;
use crate::domain::visit::Visit;
use crate::error::Error;
use crate::events;
use crate::gateway::{Failure, KEY_LIFE_HOURS, MISSING, Order, Payment, PaymentGateway};
use crate::store::attempts::{self, Asking};
use crate::store::{charges, ledger as journal};

/// How long whoever asks the provider has the charge for itself: [`ASKING`] and what surrounds it.
pub(super) const LEASE: Duration = Duration::from_secs(20);
/// How long one step may ask, in however many calls; its outcome is unknown after that.
const ASKING: Duration = Duration::from_secs(16);
/// Pause before the provider is asked again: from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Pause between looks while the patient is to confirm; the provider's webhook usually comes first.
const CONFIRMATION_LOOK: Duration = Duration::from_secs(2);
/// Pause between looks at a payment or refund that the provider does not know.
pub(super) const MISSING_LOOK: Duration = Duration::from_secs(60 * 60);
/// How long it is waited for: so long that a wrong key to the provider's API, under which nothing is known, is put right before.
pub(super) const GIVEN_UP_AFTER: TimeDelta = TimeDelta::hours(24);
/// A key this old is no longer trusted to act once; a margin for clocks and slow answers is taken off its life.
pub(super) const KEY_TRUST: TimeDelta = TimeDelta::hours(KEY_LIFE_HOURS - 1);
/// What a bank that asks for a patient who is away comes to, in the provider's words.
const NOBODY_THERE: &str = "authentication_required";

/// A charge with its visit as they stand after it was driven; `None` = that has to be read.
pub(super) type Driven = Option<(Charge, Visit)>;

impl App {
    /// Takes a charge's next step: asks the provider and takes over the answer. An unknown answer leaves the charge to the
    /// worker.
    pub(super) async fn drive(&self, id: ChargeId) -> Result<Driven, Error> {
        let mut conn = self.db.pool().acquire().await?;
        let Some((charge, visit)) = charges::get_with_visit(&mut conn, id).await? else { return Ok(None) };
        let now = self.clock.now();
        if charge.renews(&visit, now) {
            drop(conn);
            return match self.renew(&charge).await? {
                Some((charge, asking)) => self.take(charge, Step::Authorize, &asking).await,
                None => Ok(None),
            };
        }
        let Some(step) = charge.step(now) else {
            charges::postpone(&mut conn, id, charge.revision, after_change(&charge, &visit, now)).await?;
            return Ok(Some((charge, visit)));
        };
        let asking = attempts::newest(&mut conn, &charge).await?;
        drop(conn);
        self.take(charge, step, &asking).await
    }

    /// Takes one step of a charge.
    pub(super) async fn take(&self, charge: Charge, step: Step, asking: &Asking) -> Result<Driven, Error> {
        let answer = tokio::time::timeout(ASKING, ask(self.gateway.as_ref(), &charge, step, asking));
        let too_long = |_| Err(Failure::Unknown(format!("no answer in {} s", ASKING.as_secs())));
        match answer.await.unwrap_or_else(too_long) {
            Ok(payment) => self.learn(&charge, payment).await,
            Err(Failure::Refused { code }) if code == MISSING => self.miss(charge).await,
            Err(failure) => {
                tracing::warn!(charge = %charge.id, ?step, tries = charge.tries, error = %failure, "a charge waits for the provider");
                let mut conn = self.db.pool().acquire().await?;
                charges::postpone(&mut conn, charge.id, charge.revision, Some(pause(charge.tries))).await?;
                Ok(None)
            }
        }
    }

    /// Waits for a payment that the provider does not know, and then ends it as released: nothing can be taken by it any more.
    async fn miss(&self, charge: Charge) -> Result<Driven, Error> {
        let mut conn = self.db.pool().acquire().await?;
        let missing = charges::missing(&mut conn, charge.id, charge.revision, MISSING_LOOK).await?;
        drop(conn);
        tracing::error!(charge = %charge.id, since = ?missing, "the provider does not know a payment");
        if missing.is_none_or(|since| self.clock.now() - since < GIVEN_UP_AFTER) {
            return Ok(None);
        }
        let reference = charge.provider_reference.clone();
        self.learn(&charge, Payment { reference, standing: Standing::Released }).await
    }

    /// Takes over what the provider said of `seen`, unless someone else did so in the meantime.
    async fn learn(&self, seen: &Charge, payment: Payment) -> Result<Driven, Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let found = charges::lock_with_visit(&mut tx, seen.appointment, seen.kind).await?;
        let Some((mut charge, visit)) = found else { return Ok(None) };
        if (charge.state, charge.attempt) != (seen.state, seen.attempt) {
            return Ok(Some((charge, visit)));
        }
        let was = charge.clone();
        if payment.reference.is_some() {
            charge.provider_reference = payment.reference;
        }
        let happened = charge.learn(&payment.standing, visit.ended, now);
        if charge == was {
            let due =
                if charge.pending() { Some(pause(charge.tries)) } else { after_change(&charge, &visit, now) };
            charges::found(&mut tx, charge.id, charge.revision, due).await?;
        } else {
            self.conclude(&mut tx, &visit, was.state, &mut charge, happened, now).await?;
        }
        tx.commit().await?;
        // What follows at once: the next step, another reservation, or the fee that the end of the visit costs.
        if charge.next_look(&visit, now).is_some_and(|at| at <= now) || visit.ended.is_some() {
            self.wake.notify_one();
        }
        Ok(Some((charge, visit)))
    }

    /// Writes a changed charge, which `was` in another state, back with what happened to it, and brings the visit's fee along.
    pub(super) async fn conclude(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        was: State,
        charge: &mut Charge,
        happened: Vec<Happened>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        record(tx, visit, charge, &happened, now).await?;
        if [was, charge.state].contains(&State::Declined) {
            attempts::save_decline(tx, charge).await?;
        }
        let due = after_change(charge, visit, now);
        charges::save(tx, charge, due, now).await?;
        if charge.kind == Kind::NoShowFee {
            return self.reverse_if_late(tx, visit, charge, now).await;
        }
        let drawn = happened.iter().find_map(|happened| match happened {
            Happened::Voided { drawn, payment, .. } => Some((*drawn, payment.clone())),
            Happened::Authorized { .. }
            | Happened::NotAuthorized { .. }
            | Happened::Captured { .. }
            | Happened::Lapsed { .. }
            | Happened::FeeCharged
            | Happened::Owed
            | Happened::Refunded { .. } => None,
        });
        self.bring_fee_along(tx, visit, Some(charge), drawn.unwrap_or_default(), now).await
    }
}

/// Tells what happened to a charge and posts it. The caller saves the charge, whose version this raises.
pub(super) async fn record(
    tx: &mut PgConnection,
    visit: &Visit,
    charge: &mut Charge,
    happened: &[Happened],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    for one in happened {
        for entry in ledger::entries(charge, one) {
            journal::post(tx, charge, &entry, now).await?;
        }
    }
    for one in happened {
        charge.version += 1;
        events::publish(tx, visit, charge, one).await?;
    }
    Ok(())
}

/// Asks the provider for `step`.
async fn ask(
    gateway: &dyn PaymentGateway,
    charge: &Charge,
    step: Step,
    asking: &Asking,
) -> Result<Payment, Failure> {
    let key = |verb: &str| format!("{verb}-{}-{}", charge.id, charge.attempt);
    let reference = || charge.provider_reference.as_deref().unwrap_or_default();
    let (verb, amount, at_once) = match step {
        Step::Authorize => ("authorize", charge.amount, false),
        Step::Charge(amount) => ("charge", amount, true),
        Step::Capture(amount) => {
            return gateway.capture(&key("capture"), reference(), amount, charge.authorized).await;
        }
        Step::Cancel => return gateway.cancel(&key("cancel"), reference()).await,
        Step::LookUp => return gateway.look_up(reference()).await,
    };
    if let Some(old) = &asking.replaces {
        match gateway.cancel(&key("replace"), old).await.map(|before| (before.standing.clone(), before)) {
            Ok((Standing::Released, _)) => {}
            Ok((Standing::Taken { .. }, before)) => return Ok(before),
            // What does not exist reserves nothing.
            Err(Failure::Refused { code }) if code == MISSING => {}
            Err(failure) => return Err(failure),
            Ok((
                Standing::Reserved { .. } | Standing::ActionRequired { .. } | Standing::Refused { .. },
                _,
            )) => {
                return Err(Failure::Unknown("the payment before is not cancelled".into()));
            }
        }
    }
    let order = Order {
        key: key(verb),
        customer: asking.customer.clone(),
        card: asking.provider_card.clone(),
        amount,
        currency: charge.currency,
        at_once,
        off_session: asking.off_session,
        charge: charge.id,
        appointment: charge.appointment,
        since: asking.created_at,
    };
    let payment = if asking.now - asking.created_at < KEY_TRUST {
        gateway.authorize(&order).await?
    } else {
        let found = gateway.find(&order.customer, &order.key, order.since).await?;
        found.unwrap_or_else(Payment::never_made)
    };
    if asking.off_session { close(gateway, &key("close"), payment).await } else { Ok(payment) }
}

/// With the patient away a refusal is final: what it left behind is ended, so that nobody can pay it later.
async fn close(gateway: &dyn PaymentGateway, key: &str, payment: Payment) -> Result<Payment, Failure> {
    let code = match &payment.standing {
        Standing::Refused { code } => code.clone(),
        Standing::ActionRequired { .. } => NOBODY_THERE.to_owned(),
        Standing::Reserved { .. } | Standing::Taken { .. } | Standing::Released => return Ok(payment),
    };
    if let Some(open) = &payment.reference {
        let ended = gateway.cancel(key, open).await?;
        if ended.standing != Standing::Released {
            return Ok(ended);
        }
    }
    Ok(Payment { standing: Standing::Refused { code }, ..payment })
}

/// When a charge that just changed is to be looked at.
pub(super) fn after_change(charge: &Charge, visit: &Visit, now: DateTime<Utc>) -> Option<Duration> {
    let at_once = |at: DateTime<Utc>| (at - now).to_std().unwrap_or_default();
    match charge.state {
        State::RequiresAction if !charge.renews(visit, now) => Some(CONFIRMATION_LOOK),
        _ => charge.next_look(visit, now).map(at_once),
    }
}

/// When the provider is to be asked again about what did not change, after so many looks: later each time, and never at once by
/// all.
pub(super) fn pause(tries: i32) -> Duration {
    let longest = BACKOFF.0.saturating_mul(1 << tries.clamp(0, 10)).min(BACKOFF.1);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use kit::ids::{AppointmentId, PaymentMethodId};

    use super::*;
    use crate::gateway::MockPaymentGateway;

    fn charge() -> Charge {
        let currency = "USD".parse().expect("a currency");
        let mut charge = Charge::copay(AppointmentId::new(), 2_500, currency, DateTime::UNIX_EPOCH);
        charge.ask(PaymentMethodId::new());
        charge
    }

    fn asking(age: TimeDelta, replaces: Option<&str>) -> Asking {
        Asking {
            customer: "cus_1".into(),
            provider_card: "pm_1".into(),
            off_session: false,
            replaces: replaces.map(str::to_owned),
            created_at: DateTime::UNIX_EPOCH,
            now: DateTime::UNIX_EPOCH + age,
        }
    }

    fn reserved() -> Payment {
        let standing = Standing::Reserved { amount: 2_500, capture_before: None };
        Payment { reference: Some("pi_1".into()), standing }
    }

    #[tokio::test]
    async fn a_young_attempt_is_asked_again_with_its_own_key() {
        let charge = charge();
        let mut gateway = MockPaymentGateway::new();
        let key = format!("authorize-{}-1", charge.id);
        gateway
            .expect_authorize()
            .times(1)
            .withf(move |order| order.key == key)
            .returning(|_| Ok(reserved()));
        let asking = asking(TimeDelta::hours(22), None);
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, Ok(reserved()));
    }

    #[tokio::test]
    async fn an_attempt_older_than_its_key_is_looked_up_and_never_asked_again() {
        let charge = charge();
        let mut gateway = MockPaymentGateway::new();
        let mut found = vec![None, Some(reserved())];
        gateway.expect_find().times(2).returning(move |_, _, _| Ok(found.pop().flatten()));
        let asking = asking(TimeDelta::hours(23), None);
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, Ok(reserved()));
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, Ok(Payment::never_made()));
    }

    #[tokio::test]
    async fn nothing_new_is_asked_for_until_the_payment_before_is_known_to_be_cancelled() {
        let charge = charge();
        let mut gateway = MockPaymentGateway::new();
        let lost = || Err(Failure::Unknown("no answer".into()));
        gateway.expect_cancel().times(1).withf(|_, payment| payment == "pi_0").returning(move |_, _| lost());
        let asking = asking(TimeDelta::zero(), Some("pi_0"));
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, lost());
    }
}

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
use crate::domain::charge::{Charge, Happened, Kind, State, Step};
use crate::domain::ledger;
use crate::domain::visit::Visit;
use crate::error::Error;
use crate::events;
use crate::gateway::{Failure, KEY_LIFE_HOURS, Order, Payment, PaymentGateway};
use crate::store::charges::{self, Asking};
use crate::store::{ledger as journal, visits};

/// How long whoever asks the provider has the charge for itself: [`ASKING`] and what surrounds it.
pub(super) const LEASE: Duration = Duration::from_secs(20);
/// How long one step may ask, in however many calls; its outcome is unknown after that.
const ASKING: Duration = Duration::from_secs(16);
/// Pause before the provider is asked again: from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Pause between looks while the patient is to confirm; the provider's webhook usually comes first.
const CONFIRMATION_LOOK: Duration = Duration::from_secs(2);
/// A key this old is no longer trusted to act once; a margin for clocks and slow answers is taken off its life.
const KEY_TRUST: TimeDelta = TimeDelta::hours(KEY_LIFE_HOURS - 1);

impl App {
    /// Takes a charge's next step: asks the provider and takes over the answer. An unknown answer leaves the charge to the
    /// worker.
    pub(super) async fn drive(&self, id: ChargeId) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let Some(charge) = charges::get(&mut conn, id).await? else { return Ok(()) };
        let Some(step) = charge.step() else {
            charges::postpone(&mut conn, id, charge.revision, None).await?;
            return Ok(());
        };
        let asking = charges::asking(&mut conn, &charge).await?;
        drop(conn);
        let answer = tokio::time::timeout(ASKING, ask(self.gateway.as_ref(), &charge, step, &asking));
        let too_long = |_| Err(Failure::Unknown(format!("no answer in {} s", ASKING.as_secs())));
        match answer.await.unwrap_or_else(too_long) {
            Ok(payment) => self.learn(&charge, payment).await,
            Err(failure) => {
                tracing::warn!(charge = %id, ?step, tries = charge.tries, error = %failure, "a charge waits for the provider");
                let mut conn = self.db.pool().acquire().await?;
                charges::postpone(&mut conn, id, charge.revision, pause(&charge)).await?;
                Ok(())
            }
        }
    }

    /// Takes over what the provider said of `seen`, unless someone else did so in the meantime.
    async fn learn(&self, seen: &Charge, payment: Payment) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let visit = visits::lock(&mut tx, seen.appointment).await?;
        let Some(mut charge) = charges::lock(&mut tx, seen.appointment, seen.kind).await? else {
            return Ok(());
        };
        if (charge.state, charge.attempt) != (seen.state, seen.attempt) {
            return Ok(());
        }
        if payment.reference.is_some() {
            charge.provider_reference = payment.reference;
        }
        let before = charge.clone();
        let happened = charge.learn(&payment.standing, visit.ended, now);
        if charge == before && before.provider_reference == seen.provider_reference {
            charges::postpone(&mut tx, charge.id, charge.revision, pause(&charge)).await?;
        } else {
            self.conclude(&mut tx, &visit, &mut charge, happened, now).await?;
        }
        tx.commit().await?;
        if charge.pending() {
            self.wake.notify_one();
        }
        Ok(())
    }
}

impl App {
    /// Writes a changed co-pay back with what happened to it, and brings the visit's fee along.
    pub(super) async fn conclude(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        copay: &mut Charge,
        happened: Vec<Happened>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        record(tx, visit, copay, &happened, now).await?;
        if matches!(copay.state, State::Declined | State::Authorized) {
            charges::save_decline(tx, copay).await?;
        }
        let due = due_after_change(copay);
        charges::save(tx, copay, due, now).await?;
        let drawn = happened.iter().find_map(|happened| match happened {
            Happened::Voided { drawn, .. } => Some(*drawn),
            Happened::Authorized
            | Happened::NotAuthorized
            | Happened::Captured
            | Happened::Lapsed { .. }
            | Happened::FeeCharged
            | Happened::Owed => None,
        });
        self.bring_fee_along(tx, visit, Some(copay), drawn.unwrap_or(0), now).await
    }

    /// Makes the fee that the visit's end costs, and settles it once its co-pay can give it nothing more than `drawn`.
    pub(super) async fn bring_fee_along(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        copay: Option<&Charge>,
        drawn: i64,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        let fee = match charges::lock(tx, visit.appointment, Kind::NoShowFee).await? {
            Some(fee) => Some(fee),
            None => self.begin_fee(tx, visit, copay, now).await?,
        };
        let Some(mut fee) = fee.filter(|fee| fee.state == State::Capturing) else { return Ok(()) };
        if copay.is_none_or(Charge::gives_no_more) {
            let happened = fee.settle_fee(drawn);
            record(tx, visit, &mut fee, &happened, now).await?;
            charges::save(tx, &mut fee, None, now).await?;
        }
        Ok(())
    }

    /// `None` = the visit costs no fee, or it is not known yet what its co-pay can give.
    async fn begin_fee(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        copay: Option<&Charge>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Option<Charge>> {
        let Some(ended) = visit.ended.filter(|ended| ended.fee > 0) else { return Ok(None) };
        if copay.is_some_and(|copay| copay.state == State::Authorizing) {
            return Ok(None);
        }
        let currency = copay.map_or(self.currency, |copay| copay.currency);
        let fee = Charge::fee(copay, visit.appointment, ended.fee, currency, now);
        charges::insert(tx, &fee, None).await?;
        Ok(Some(fee))
    }
}

/// Tells what happened to a charge and posts it. The caller saves the charge, whose version this raises.
async fn record(
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
    match step {
        Step::Authorize => {
            if let Some(old) = &asking.replaces {
                gateway.cancel(&key("replace"), old).await?;
            }
            let order = Order {
                key: key("authorize"),
                customer: asking.customer.clone(),
                card: asking.provider_card.clone(),
                amount: charge.amount,
                currency: charge.currency,
                off_session: asking.off_session,
                charge: charge.id,
                appointment: charge.appointment,
                since: asking.created_at,
            };
            if asking.now - asking.created_at < KEY_TRUST {
                return gateway.authorize(&order).await;
            }
            let found = gateway.find(&order.customer, &order.key, order.since).await?;
            Ok(found.unwrap_or_else(Payment::never_made))
        }
        Step::Capture(amount) => gateway.capture(&key("capture"), reference(), amount).await,
        Step::Cancel => gateway.cancel(&key("cancel"), reference()).await,
        Step::LookUp => gateway.look_up(reference()).await,
    }
}

/// When a charge that just changed is to be looked at.
fn due_after_change(charge: &Charge) -> Option<Duration> {
    match charge.state {
        State::RequiresAction => Some(CONFIRMATION_LOOK),
        State::Authorizing
        | State::Authorized
        | State::Declined
        | State::Capturing
        | State::Captured
        | State::Voiding
        | State::Voided
        | State::Lapsed
        | State::Refunded => charge.pending().then_some(Duration::ZERO),
    }
}

/// When a charge that did not change is to be looked at again: later each time, and never at once by all.
fn pause(charge: &Charge) -> Option<Duration> {
    let longest = BACKOFF.0.saturating_mul(1 << charge.tries.clamp(0, 10)).min(BACKOFF.1);
    charge.pending().then(|| longest.mul_f64(rand::rng().random_range(0.5..=1.0)))
}

#[cfg(test)]
mod tests {
    use kit::ids::{AppointmentId, PaymentMethodId};

    use super::*;
    use crate::domain::charge::Standing;
    use crate::gateway::MockPaymentGateway;

    fn charge() -> Charge {
        let currency = "USD".parse().expect("a currency");
        let mut charge = Charge::copay(AppointmentId::new(), 2_500, currency, DateTime::UNIX_EPOCH);
        charge.ask(PaymentMethodId::new());
        charge
    }

    fn asking(charge: &Charge, age: TimeDelta, replaces: Option<&str>) -> Asking {
        Asking {
            card: charge.payment_method.expect("asked for with a card"),
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
        let asking = asking(&charge, TimeDelta::hours(22), None);
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, Ok(reserved()));
    }

    #[tokio::test]
    async fn an_attempt_older_than_its_key_is_looked_up_and_never_asked_again() {
        let charge = charge();
        let mut gateway = MockPaymentGateway::new();
        let mut found = vec![None, Some(reserved())];
        gateway.expect_find().times(2).returning(move |_, _, _| Ok(found.pop().flatten()));
        let asking = asking(&charge, TimeDelta::hours(23), None);
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, Ok(reserved()));
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, Ok(Payment::never_made()));
    }

    #[tokio::test]
    async fn nothing_new_is_asked_for_until_the_payment_before_is_known_to_be_cancelled() {
        let charge = charge();
        let mut gateway = MockPaymentGateway::new();
        let lost = || Err(Failure::Unknown("no answer".into()));
        gateway.expect_cancel().times(1).withf(|_, payment| payment == "pi_0").returning(move |_, _| lost());
        let asking = asking(&charge, TimeDelta::zero(), Some("pi_0"));
        assert_eq!(ask(&gateway, &charge, Step::Authorize, &asking).await, lost());
    }
}

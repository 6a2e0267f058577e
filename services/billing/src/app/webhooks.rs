//! What the provider told: kept at once, applied later; and what it could not deliver, asked for.
//!
//! An event is a hint. One about a payment has its charge looked at; one about a refund or a dispute has that looked up and taken
//! over; one about a payment that is no charge's newest has it ended, if it reserves anything. So the order in which events come,
//! and how often, does not matter.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::App;
use super::refund::Taken;
use super::settle::{LEASE, pause};
use crate::domain::charge::State;
use crate::error::Error;
use crate::gateway::{Event, Failure, Span};
use crate::store::webhooks::{About, Told};
use crate::store::{charges, chores, refunds, webhooks};

/// Events about payments applied in one transaction.
const BATCH: i64 = 500;
/// Refunds, and events looked into by themselves, looked at at once by one replica.
const CONCURRENCY: i64 = 8;
/// How soon work of elsewhere is noticed; this process's own wakes at once.
const POLL: Duration = Duration::from_secs(1);
/// Pause after a batch: what comes meanwhile is applied together.
const GATHER: Duration = Duration::from_millis(50);
/// From one reading of the provider's events to the next.
const BACKFILL_EVERY: Duration = Duration::from_secs(5 * 60);
/// How far a reading reaches back beyond the one before: for clocks that differ, and events that are listed late.
const OVERLAP: TimeDelta = TimeDelta::minutes(15);
/// How long the provider lists an event (docs.stripe.com/api/events).
const LISTED_FOR: TimeDelta = TimeDelta::days(30);
/// How long the answer that names a payment is waited for before the payment is looked into as a stray.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Looks at a refund, a dispute or a stray of a payment that is still on its way; after them it is left to reconciliation.
const MOST_TRIES: i32 = 40;

/// The state of a charge that knows news of this kind already; `None` = it is no news about payments.
fn known(kind: &str) -> Option<State> {
    match kind {
        "payment_intent.amount_capturable_updated" => Some(State::Authorized),
        "payment_intent.payment_failed" => Some(State::Declined),
        "payment_intent.requires_action" => Some(State::RequiresAction),
        "payment_intent.succeeded" => Some(State::Captured),
        "payment_intent.canceled" | "charge.expired" => Some(State::Voided),
        _ => None,
    }
}

/// What a payment that reserves something, or may yet, is told as.
const LIVE: [State; 2] = [State::Authorized, State::RequiresAction];

impl App {
    /// Remembers an event of the provider, in one statement; one that cannot be news (a payment was created) not at all.
    pub async fn hear(&self, event: &Event) -> sqlx::Result<()> {
        let of_payment = event.payment.is_some() && known(&event.kind).is_some();
        if !(of_payment || event.refund.is_some() || event.dispute.is_some()) {
            return Ok(());
        }
        let mut conn = self.db.pool().acquire().await?;
        if webhooks::put(&mut conn, event, self.clock.now()).await? {
            self.books.notify_one();
        }
        Ok(())
    }

    /// Applies a batch of events about payments; true = there may be more.
    async fn apply_payments(&self) -> sqlx::Result<bool> {
        let mut tx = self.db.begin().await?;
        let taken = webhooks::take_payments(&mut tx, BATCH).await?;
        let more = taken.len() as i64 == BATCH;
        if taken.is_empty() {
            tx.rollback().await?;
            return Ok(false);
        }
        let told: Vec<_> =
            taken.into_iter().filter_map(|event| known(&event.kind).map(|state| (event, state))).collect();
        let news: Vec<_> = told.iter().map(|(event, state)| (event.payment.clone(), *state)).collect();
        let looked = charges::look_at(&mut tx, &news).await?;
        let open = told.into_iter().filter(|(_, state)| LIVE.contains(state));
        let open: Vec<_> = open.map(|(event, _)| event.id).collect();
        webhooks::set_strays_apart(&mut tx, &open, ANSWERED_WITHIN).await?;
        tx.commit().await?;
        if looked > 0 {
            self.wake.notify_one();
        }
        Ok(more)
    }

    /// Applies an event that is looked into by itself.
    async fn look_into(&self, told: &Told) -> Result<(), Error> {
        let taken = match &told.about {
            About::Refund(id) => match self.gateway.look_up_refund(id).await {
                Ok(given) => Ok(self.take_over(&given, true).await?),
                Err(failure) => Err(failure),
            },
            About::Dispute(id) => match self.gateway.look_up_dispute(id).await {
                Ok(dispute) => Ok(self.take_over_dispute(&dispute, true).await?),
                Err(failure) => Err(failure),
            },
            About::Stray(payment, charge) => self.end_stray(payment, *charge).await?,
        };
        let due = match taken {
            Ok(Taken::TooEarly) if told.tries < MOST_TRIES => Some(pause(told.tries)),
            Ok(Taken::TooEarly | Taken::Known | Taken::News | Taken::Foreign) => None,
            Err(Failure::Refused { .. } | Failure::Declined { .. }) => None,
            Err(failure @ Failure::Unknown(_)) => {
                tracing::warn!(event = told.id, error = %failure, "a payment webhook waits for the provider");
                Some(pause(told.tries))
            }
        };
        Ok(webhooks::postpone(&mut *self.db.pool().acquire().await?, &told.id, due).await?)
    }

    /// Reads what the provider has told lately, and keeps what no webhook brought. True = it was time to.
    async fn read_events(&self) -> Result<bool, Error> {
        let mut conn = self.db.pool().acquire().await?;
        let begun = chores::begin(&mut conn, chores::BACKFILL, BACKFILL_EVERY).await?;
        drop(conn);
        let Some((now, done)) = begun else { return Ok(false) };
        let span = Span { from: (done - OVERLAP).max(now - LISTED_FOR), until: now };
        let mut after = None;
        loop {
            let page = self.gateway.events(span, after).await.map_err(|failure| {
                tracing::warn!(error = %failure, "the provider's events could not be read");
                Error::provider_down()
            })?;
            for event in &page.items {
                self.hear(event).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut conn = self.db.pool().acquire().await?;
        chores::done(&mut conn, chores::BACKFILL, now).await?;
        Ok(true)
    }
}

/// Applies what the provider told, and asks for refunds, until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let mut running = JoinSet::new();
    while !stop.is_cancelled() {
        while running.try_join_next().is_some() {}
        let free = CONCURRENCY - running.len() as i64;
        let more = match round(&app, free, &mut running).await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "what the provider told waits");
                false
            }
        };
        let busy = running.len() as i64 >= CONCURRENCY;
        if more {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = running.join_next(), if busy => {}
            () = app.books.notified(), if !busy => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(POLL), if !busy => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn round(app: &App, free: i64, running: &mut JoinSet<()>) -> sqlx::Result<bool> {
    let more = app.apply_payments().await?;
    let mut conn = app.db.pool().acquire().await?;
    let parts = refunds::claim(&mut conn, free, LEASE).await?;
    let told = webhooks::claim(&mut conn, free - parts.len() as i64, LEASE).await?;
    drop(conn);
    let waits = |error: Error| {
        tracing::warn!(error = format!("{error:?}"), "a refund or webhook waits for the end of its lease");
    };
    for id in parts {
        let app = app.clone();
        running.spawn(async move { app.drive_refund(id).await.unwrap_or_else(waits) });
    }
    for event in told {
        let app = app.clone();
        running.spawn(async move { app.look_into(&event).await.unwrap_or_else(waits) });
    }
    Ok(more)
}

/// Reads the provider's events every so often, in one replica at a time, until `stop`.
pub async fn backfill(app: App, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(POLL);
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        if let Err(error) = app.read_events().await {
            tracing::warn!(error = format!("{error:?}"), "dropped webhooks wait to be read again");
        }
    }
}

//! Drives every charge that is on its way to its end, in every replica, without a leader.
//!
//! Only the database says what is to be done: a charge is claimed by moving its `due_at` beyond a lease, with rows that another
//! worker is claiming left to it. Whoever dies holding a charge loses it when the lease is over.
//!
//! Beside it, old webhooks are forgotten, and reservations that a program from before left without a next look get one.

use std::time::Duration;

use chrono::TimeDelta;
use kit::ids::ChargeId;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::App;
use super::settle::LEASE;
use crate::domain::renewal::KEPT_UP_FOR;
use crate::store::{charges, webhooks};

/// Charges driven at once by one replica.
const CONCURRENCY: usize = 16;
/// How soon a charge that became due elsewhere is noticed; this process's own work wakes the worker at once.
const POLL: Duration = Duration::from_secs(1);
/// How long a webhook is remembered; the provider repeats one for three days at most (docs.stripe.com/webhooks).
const WEBHOOK_MEMORY: TimeDelta = TimeDelta::days(30);
/// Pause between two rounds of forgetting.
const FORGET_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause between two searches for reservations without a next look.
const PLAN_EVERY: Duration = Duration::from_secs(60 * 60);

/// Drives charges until `stop`, whatever fails in between. What is running then is finished: each call to the provider has
/// its own time limit.
pub async fn run(app: App, stop: CancellationToken) {
    let mut running = JoinSet::new();
    while !stop.is_cancelled() {
        while running.try_join_next().is_some() {}
        let free = CONCURRENCY - running.len();
        let claimed = claim(&app, free).await;
        let busy = claimed.len() == free;
        for id in claimed {
            running.spawn(drive(app.clone(), id));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = running.join_next(), if busy => {}
            () = app.wake.notified(), if !busy => {}
            () = tokio::time::sleep(POLL), if !busy => {}
        }
    }
    while running.join_next().await.is_some() {}
}

/// Forgets old webhooks until `stop`: at the start, then once a day.
pub async fn forget_webhooks(app: App, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(FORGET_EVERY);
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        match forget(&app).await {
            Ok(webhooks) => tracing::debug!(webhooks, "old webhooks were forgotten"),
            Err(error) => tracing::warn!(%error, "old webhooks wait to be forgotten"),
        }
    }
}

async fn forget(app: &App) -> sqlx::Result<u64> {
    let mut conn = app.db.pool().acquire().await?;
    webhooks::forget(&mut conn, app.clock.now() - WEBHOOK_MEMORY).await
}

/// Has every reservation looked at that should be, until `stop`: at the start, then once an hour.
pub async fn plan_looks(app: App, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(PLAN_EVERY);
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        match plan(&app).await {
            Ok(0) => {}
            Ok(charges) => {
                tracing::info!(charges, "reservations without a next look have one now");
                app.wake.notify_one();
            }
            Err(error) => tracing::warn!(%error, "reservations without a next look wait for one"),
        }
    }
}

async fn plan(app: &App) -> sqlx::Result<u64> {
    let mut conn = app.db.pool().acquire().await?;
    charges::plan_looks(&mut conn, app.clock.now() - KEPT_UP_FOR).await
}

async fn drive(app: App, id: ChargeId) {
    if let Err(error) = app.drive(id).await {
        tracing::warn!(charge = %id, error = format!("{error:?}"), "a charge waits for the end of its lease");
    }
}

async fn claim(app: &App, limit: usize) -> Vec<ChargeId> {
    let claimed = async {
        let mut conn = app.db.pool().acquire().await?;
        charges::claim(&mut conn, limit as i64, LEASE).await
    };
    claimed.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "due charges could not be read");
        vec![]
    })
}

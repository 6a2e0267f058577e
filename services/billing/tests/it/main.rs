//! Billing on real PostgreSQL and NATS, against the sandbox payment provider over HTTP.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod authorize;
mod cards;
mod disputes;
mod far_visits;
mod fees;
mod keys;
mod late;
mod ledger;
mod lost;
mod merges;
mod missed;
mod model;
mod process;
mod provider;
mod reconcile;
mod refunds;
mod renewal;
mod secrets;
mod signatures;
mod unbooked;
mod visits;
mod webhooks;
mod world;

//! Journeys: the whole suite, real servers, every call through the gateway.

#![allow(clippy::unwrap_used, reason = "a journey that breaks off should say where")]

mod booking;
mod calendars;
mod changes;
mod consent;
mod faults;
mod intake;
mod merges;
mod offers;
mod refusals;
mod texts;
mod vacation;
mod waitlist;

use testkit::network::Network;
use testkit::suite::RunningSuite;

/// A running suite with the small network in it.
async fn start() -> (RunningSuite, Network) {
    let suite = RunningSuite::start().await;
    let network = suite.network().await;
    (suite, network)
}

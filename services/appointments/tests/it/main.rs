//! Booking on a real database: races, the co-pay saga and its recovery, moves, calendars that change, lists and boards. Scheduling,
//! patients and billing are remote edges here, and mocked.

#![allow(clippy::unwrap_used, reason = "a test that breaks off should say where")]

mod calendar;
mod displaced;
mod harness;
mod intake;
mod lists;
mod merges;
mod model;
mod moves;
mod races;
mod refusals;
mod requests;
mod reschedule;
mod rules;
mod saga;
mod visits;
mod waitlist;
mod watch;

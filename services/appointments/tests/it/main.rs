//! Booking on a real database: races, the co-pay saga and its recovery, the calendar fence. Scheduling, patients and billing are
//! remote edges here, and mocked.

#![allow(clippy::unwrap_used, reason = "a test that breaks off should say where")]

mod harness;
mod model;
mod races;
mod requests;
mod saga;

//! Both providers over real HTTP, as the suite's adapters meet them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod disputes;
mod faults;
mod inbox;
mod payments;
mod sms;
mod support;
mod webhooks;

//! N clients over gRPC race for the same slots, with providers and rooms crossing, while services are killed at random; then an
//! independent checker proves from the database, the payment provider and the clients' own log that every promise was kept.
//!
//! | module | what |
//! |---|---|
//! | [`facts`] | rows and log as plain values |
//! | [`check`] | facts in, violations out; tested against planted lies |
//! | [`stage`] | PostgreSQL, NATS, the services as processes, the sandbox provider |
//! | [`network`] | clinics, providers, patients: too few for all |
//! | [`ask`] | what clients ask for, drawn from the seed |
//! | [`client`] | asks until answered, and writes down what it was told |
//! | [`trouble`] | faults of the provider, jumps of the clock, changed calendars |
//! | [`run`] | one race from start to verdict |
//! | [`read`] | the facts, out of the database and the provider |
//! | [`report`] | the outcome as a table |

pub mod ask;
pub mod check;
pub mod client;
pub mod facts;
pub mod network;
pub mod read;
pub mod report;
pub mod run;
pub mod stage;
pub mod trouble;

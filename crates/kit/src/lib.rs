//! What every service needs and no service should write twice.
//!
//! | module | gives |
//! |---|---|
//! | [`config`] | the options shared by all services (flags and environment) |
//! | [`telemetry`] | logs, traces, metrics |
//! | [`clock`], [`ids`], [`fields`], [`page`] | time as an argument, typed ids, request parsing, page tokens |
//! | [`status`] | errors with `google.rpc` details |
//! | [`auth`] | tokens, callers, the role rule of each method |
//! | [`deadline`], [`client`], [`serve`] | one port per service, deadlines honoured and passed on |
//! | [`db`], [`bootstrap`], [`idempotency`] | PostgreSQL: pools, roles and schemas, request ids |
//! | [`watch`] | streams that stay open |
//! | [`ical`] | content lines of iCalendar files |
//! | [`messaging`] | outbox relay, inbox consumer, dead letters |
//! | [`merges`] | whose a record is that names a merged patient |
//! | [`platform`] | all of the above, connected, for one service |

pub mod auth;
pub mod bootstrap;
pub mod client;
pub mod clock;
pub mod config;
pub mod db;
pub mod deadline;
pub mod fields;
pub mod ical;
pub mod idempotency;
pub mod ids;
pub mod merges;
pub mod messaging;
pub mod page;
pub mod platform;
pub mod rpc;
pub mod serve;
pub mod status;
pub mod telemetry;
pub mod watch;

//! The `clinic` command: run the suite on one machine, and operate it.
//!
//! | module | what |
//! |---|---|
//! | [`suite`] | all services, the gateway and the sandbox providers in one process, as tests and `clinic up` run them |
//! | [`up`] | `clinic up`: private servers, the suite, the demo network, one screen |
//! | [`demo`] | the demo network, seeded over the suite's own RPCs |
//! | [`data_dir`] | where a local suite keeps its data, and its keys |
//! | [`import`] | `clinic import`: other calendars' busy time and holidays, patients |
//! | [`roster`] | patients as a CSV file, in and out |
//! | [`token`], [`dlq`], [`keys`], [`check`], [`bootstrap`], [`probe`] | the other commands |

pub mod bootstrap;
mod caller;
pub mod check;
pub mod data_dir;
pub mod demo;
pub mod dlq;
pub mod import;
pub mod keys;
pub mod probe;
pub mod roster;
pub mod suite;
pub mod token;
pub mod up;

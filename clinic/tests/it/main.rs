//! The `clinic` program as people run it: a process of its own, started, stopped, killed and asked.

#![allow(clippy::unwrap_used, reason = "a test that breaks off should say where")]

mod canary;
mod commands;
mod import;
mod kill;
mod process;
mod readme;
mod roster;
mod up;

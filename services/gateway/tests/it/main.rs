//! The gateway between real clients and small upstreams that speak the real contract.

#![allow(clippy::unwrap_used, reason = "in a test the line that fails says enough")]

mod grpc;
mod http;
mod suite;
mod web;

//! Texts received, and what they lead to.
//!
//! | module | holds |
//! |---|---|
//! | [`understand`] | what a text says |
//! | [`receive`] | it is kept, and carrier words take effect, before the provider is answered |
//! | [`decide`] | whose it is, and which visit or offer it is about |
//! | [`worker`] | what is done for it, and answered |
//! | [`withdrawn`] | who opted out at the provider, told to patients |
//! | [`ports`] | patients and appointments |

mod decide;
pub mod ports;
pub mod receive;
pub mod understand;
mod withdrawn;
pub mod worker;

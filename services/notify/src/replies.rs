//! Texts received, and what they lead to.
//!
//! | module | holds |
//! |---|---|
//! | [`understand`] | what a text says |
//! | [`receive`] | it is kept, and carrier words take effect, before the provider is answered |
//! | [`worker`] | whose it is and which visit it is about; what is done for it, and answered |
//! | [`withdrawn`] | who opted out at the provider, told to patients |
//! | [`ports`] | patients and appointments |

pub mod ports;
pub mod receive;
pub mod understand;
mod withdrawn;
pub mod worker;

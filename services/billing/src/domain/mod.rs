//! Values, states and rules of the money of visits. No async, no I/O, no clock.
//!
//! | module | holds |
//! |---|---|
//! | [`money`] | currencies, amounts and their bounds |
//! | [`fee`] | what a visit costs from one date on |
//! | [`card`] | cards on file |
//! | [`visit`] | what billing knows of a visit, and how it ended |
//! | [`charge`] | a charge's life: states, what moves it, what is told of it |
//! | [`renewal`] | when a reservation is looked at, captured and made anew |
//! | [`missed`] | how a no-show fee is settled |
//! | [`refund`] | money given back, and of which payments |
//! | [`ledger`] | which accounts each happening moves |
//! | [`reconcile`] | what the provider's records should say, and what differs |

pub mod card;
pub mod charge;
pub mod fee;
pub mod ledger;
pub mod missed;
pub mod money;
pub mod reconcile;
pub mod refund;
pub mod renewal;
pub mod visit;

#[cfg(test)]
mod model;

/// An enum that a column stores by its upper-snake name.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$inner])* $variant),*
        }

        impl $name {
            /// The name it is stored by.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),*
                }
            }

            /// The value stored as `word`.
            pub fn of_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use words;

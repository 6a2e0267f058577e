//! Use cases. Each owns its transactions; the provider is never asked inside one.
//!
//! | module | does |
//! |---|---|
//! | [`fees`], [`cards`], [`account`] | fee schedules, cards on file, what is read |
//! | [`authorize`] | reserves a co-pay for a held visit |
//! | [`settle`] | asks the provider for one charge and takes over what it says |
//! | [`renew`] | reserves a co-pay anew while the patient is away |
//! | [`missed`] | makes the fee of a missed visit, and charges what the co-pay does not give |
//! | [`visits`] | follows how visits end |
//! | [`refund`] | gives money back, and takes over what was given back elsewhere |
//! | [`disputes`] | takes over what banks withdraw and reinstate |
//! | [`strays`] | ends payments whose answer nobody waited for |
//! | [`webhooks`] | applies what the provider told, and asks for what it could not deliver |
//! | [`reconcile`] | compares the provider's records with ours |
//! | [`worker`] | drives every charge that is on its way to its end, from the database alone |

pub mod account;
pub mod authorize;
pub mod cards;
pub mod disputes;
pub mod fees;
pub mod missed;
pub mod reconcile;
pub mod refund;
pub mod renew;
pub mod settle;
pub mod strays;
pub mod visits;
pub mod webhooks;
pub mod worker;

use std::sync::Arc;

use kit::clock::Clock;
use kit::db::Db;
use tokio::sync::Notify;

use crate::domain::money::Currency;
use crate::gateway::PaymentGateway;
use crate::ports::Appointments;

/// What the use cases stand on; clones share it.
#[derive(Clone)]
pub struct App {
    /// The service's own schema.
    pub db: Db,
    /// Where cards are kept and charged.
    pub gateway: Arc<dyn PaymentGateway>,
    /// Whether visits are booked.
    pub appointments: Arc<dyn Appointments>,
    /// Time.
    pub clock: Clock,
    /// The network's currency.
    pub currency: Currency,
    /// Rings when a charge has become due.
    pub wake: Arc<Notify>,
    /// Rings when a refund has become due, or the provider has told something.
    pub books: Arc<Notify>,
}

//! Appointments: holds, bookings, visits and the waitlist. Owns "no overlap".
//!
//! | module | what |
//! |---|---|
//! | [`domain`] | states and rules as values |
//! | [`app`] | the use cases: take time, drive a booking to its end, close a visit, wait, offer freed time, read |
//! | [`store`] | all SQL; the four exclusion constraints stand in `migrations/` |
//! | [`ports`] | scheduling, patients and billing as booking needs them |
//! | [`events`] | what is told, and what is followed |
//! | `wire` | appointments as the contract has them |
//! | [`grpc`] | the contract's `BookingService` and `WaitlistService` |

pub mod app;
pub mod config;
pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
pub mod ports;
pub mod store;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use kit::clock::Clock;
use kit::platform::Platform;
use proto::clinic::appointments::v1::booking_service_server::BookingServiceServer;
use proto::clinic::appointments::v1::waitlist_service_server::WaitlistServiceServer;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::{ALTERNATIVE_MINUTES, Config, OFFER_MINUTES};

/// Name of the service: its schema, role and event context.
pub const NAME: &str = "appointments";
/// Domain of its errors.
pub const DOMAIN: &str = "appointments.clinic";
/// Port it listens on by default.
pub const PORT: u16 = 50052;

/// The schema's history.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Serves until `stop`.
pub async fn run(
    listener: TcpListener,
    config: Config,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let platform = Platform::start(NAME, &config.service, &MIGRATOR, clock.clone(), stop.clone()).await?;
    let remote = Arc::new(ports::Remote {
        scheduling: platform.outbound(&config.scheduling_url)?,
        patients: platform.outbound(&config.patients_url)?,
        billing: platform.outbound(&config.billing_url)?,
    });
    let app =
        app::App::new(platform.db.clone().by_key(), clock, remote.clone(), remote.clone(), remote, stop)
            .offering_for(Duration::from_mins(config.offer_minutes))
            .holding_alternatives_for(Duration::from_mins(config.alternative_minutes));
    events::follow(&platform, &app);
    platform.spawn(app.clone().work());
    platform.spawn(app.clone().feed());
    let routes = Routes::new(BookingServiceServer::new(grpc::Booking::new(app.clone())))
        .add_service(WaitlistServiceServer::new(grpc::Waitlist::new(app)));
    platform.serve(listener, routes, axum::Router::new()).await
}

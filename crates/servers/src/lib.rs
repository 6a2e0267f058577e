//! Private PostgreSQL and NATS servers, fetched once and supervised: for `clinic up`, for tests (each test process starts
//! its own) and for the workspace's tasks.
//!
//! ```no_run
//! # async fn example() -> servers::Result<()> {
//! use servers::{Nats, NatsOptions, Postgres, PostgresOptions, RunFolder, Wheels};
//!
//! let binaries = Wheels::ensure(&servers::default_cache_dir()?, |line| eprintln!("{line}")).await?;
//! let run = RunFolder::create(None)?;
//! let options = PostgresOptions { data_dir: run.data_dir("postgres"), port: 0, durable: false };
//! let postgres = Postgres::start(&binaries, options).await?;
//! let options = NatsOptions { data_dir: run.data_dir("nats"), port: 0, durable: false };
//! let nats = Nats::start(&binaries, options).await?;
//! println!("{} {}", postgres.admin_url(), nats.url());
//! # Ok(()) }
//! ```
//!
//! What holds:
//! - No server outlives the process that started it, even when that is killed with signal 9 (`supervised`, a pipe).
//! - Two processes never share a data folder (`folder`, a file lock); a run folder goes with its process (`folder`, a
//!   janitor); a server left by an earlier process is waited for or ended before the next start (`log`, a file lock).
//! - As root, the servers run as `postgres` or `nobody` (`user`). Nothing here listens on anything but 127.0.0.1.
//! - Programs come from pinned wheels (`wheels`), never from the PATH.

mod cluster;
mod error;
mod folder;
mod log;
mod nats;
mod postgres;
mod process;
mod supervised;
mod user;
mod wheels;

pub use error::{Error, Result};
pub use folder::{DataDir, DataDirLock, RUN_DIR_VARIABLE, RunFolder};
pub use nats::{Nats, NatsOptions};
pub use postgres::{Postgres, PostgresOptions};
pub use user::reachable_data_dir;
pub use wheels::{Binaries, CACHE_DIR_VARIABLE, Wheels, default_cache_dir};

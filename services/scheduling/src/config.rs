//! Options of this service.

/// What the operator sets.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Database, broker, identity.
    #[command(flatten)]
    pub service: kit::config::Service,
}

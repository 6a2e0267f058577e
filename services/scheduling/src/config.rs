//! Options of this service.

/// What the operator sets.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Database, broker, identity.
    #[command(flatten)]
    pub service: kit::config::Service,
    /// How the world reaches the gateway, such as `https://clinic.example.org`; links to calendars begin with it.
    #[arg(long, env = "GATEWAY_PUBLIC_URL", default_value = "http://localhost:8080")]
    pub public_url: kit::config::Origin,
}

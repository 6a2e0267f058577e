//! The options that every service has: flags, each with its environment variable.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};

/// Options of a service that owns a schema and follows events.
#[derive(Args, Clone, Debug)]
pub struct Service {
    /// PostgreSQL, as the service's own role, such as postgres://billing:secret@db:5432/clinic
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Connections to PostgreSQL at most.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: u32,
    /// NATS with JetStream.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222", hide_env_values = true)]
    pub nats_url: String,
    /// Who may call, and as whom this service calls others.
    #[command(flatten)]
    pub identity: Identity,
}

/// Whose tokens are believed, and the key that signs this service's own.
#[derive(Args, Clone, Debug)]
pub struct Identity {
    /// JSON Web Key Set whose tokens are accepted (RFC 7517). Read again when it changes.
    #[arg(long, env = "CLINIC_JWKS_FILE")]
    pub jwks_file: PathBuf,
    /// PKCS#8 PEM key (Ed25519) that signs the tokens this service shows to the others.
    #[arg(long, env = "CLINIC_SERVICE_KEY_FILE")]
    pub service_key_file: PathBuf,
    /// The `iss` that tokens must have.
    #[arg(long, env = "CLINIC_ISSUER", default_value = crate::auth::DEV_ISSUER)]
    pub issuer: String,
    /// The `aud` that tokens must have.
    #[arg(long, env = "CLINIC_AUDIENCE", default_value = crate::auth::AUDIENCE)]
    pub audience: String,
}

/// Options of a program that serves one port.
#[derive(Args, Clone, Debug)]
pub struct Process {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: Telemetry,
}

/// Logs and traces.
#[derive(Args, Clone, Debug)]
pub struct Telemetry {
    /// What to log: a level, or levels by module such as `info,sqlx=warn`.
    #[arg(long = "log", env = "CLINIC_LOG", default_value = "info", global = true)]
    pub log: String,
    /// Shape of log lines.
    #[arg(long, env = "CLINIC_LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty, global = true)]
    pub log_format: LogFormat,
    /// OpenTelemetry collector (OTLP over gRPC), such as http://collector:4317; empty = spans are not exported.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", global = true)]
    pub otlp_endpoint: Option<String>,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line, for collectors.
    Json,
}

/// Scheme, host and port, without a path (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and, unless it is the scheme's own, port.
    pub authority: Authority,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must look like https://clinic.example.org, without a path");
        let uri = text.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let path = uri.path_and_query.map_or(String::new(), |path| path.to_string());
        match (uri.scheme, uri.authority) {
            (Some(scheme), Some(authority))
                if [Scheme::HTTP, Scheme::HTTPS].contains(&scheme)
                    && ["", "/"].contains(&path.as_str())
                    && !authority.as_str().contains('@') =>
            {
                Ok(Self { scheme, authority })
            }
            _ => Err(wrong()),
        }
    }
}

impl Origin {
    /// As the `Origin` header spells it.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.to_string()).expect("parts of a URI are visible ASCII")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

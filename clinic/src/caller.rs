//! How a command calls the suite: through its gateway, with its user's token.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use kit::client::Outbound;
use tonic::{Code, Status};

/// Pauses before a call that found no answer is made again.
const RETRY_AFTER: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Which suite, and as whom.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The suite's public address.
    #[arg(long, value_name = "URL", env = "GATEWAY_URL", default_value = "http://127.0.0.1:8080")]
    gateway: String,
    /// Who calls; `clinic token` prints one, with the role that the examples name.
    #[arg(long, env = "TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Options {
    fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }

    /// Whether a token is given.
    pub(crate) fn has_token(&self) -> bool {
        self.token().is_some()
    }

    /// The suite, for a command that needs `role`. Connects on first use.
    pub(crate) fn caller(&self, role: &'static str) -> anyhow::Result<Caller> {
        let token = self.token().with_context(|| {
            format!("no token: run {} first, or give one with --token", how_to_get_one(role))
        })?;
        let channel = Outbound::bearing(&self.gateway, token)?;
        Ok(Caller { gateway: self.gateway.clone(), role, channel })
    }
}

fn how_to_get_one(role: &str) -> String {
    format!("export TOKEN=$(clinic token --role {role})")
}

/// The suite behind a gateway.
pub(crate) struct Caller {
    gateway: String,
    role: &'static str,
    channel: Outbound,
}

impl Caller {
    /// What clients talk through.
    pub(crate) fn channel(&self) -> Outbound {
        self.channel.clone()
    }

    /// What a refusal means for who runs the command. The message names every bad field.
    pub(crate) fn explained(&self, status: &Status) -> anyhow::Error {
        let (reason, message) = (kit::status::reason(status), status.message());
        let said = if reason.is_empty() { message.to_owned() } else { format!("{reason}: {message}") };
        match status.code() {
            Code::Unauthenticated => {
                anyhow!("the token is not accepted ({said}): run {}", how_to_get_one(self.role))
            }
            Code::PermissionDenied => {
                anyhow!("the token's role is not enough ({said}): run {}", how_to_get_one(self.role))
            }
            Code::Unavailable => anyhow!(
                "{} does not answer ({said}): start the suite with clinic up, or name its address with --gateway",
                self.gateway
            ),
            _ => anyhow!("{said}"),
        }
    }
}

/// Makes a call again, a few times, while nobody answers.
pub(crate) async fn with_retries<T, F: Future<Output = Result<T, Status>>>(
    call: impl Fn() -> F,
) -> Result<T, Status> {
    for pause in RETRY_AFTER {
        match call().await {
            Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                tokio::time::sleep(pause).await;
            }
            answer => return answer,
        }
    }
    call().await
}

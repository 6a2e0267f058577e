//! What an operator can set.

use std::str::FromStr;

use clap::{ArgAction, Args};
pub use kit::config::Origin;

/// Options of the gateway: flags, each with its environment variable.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Where scheduling listens.
    #[arg(long, env = "SCHEDULING_URL", default_value = "http://127.0.0.1:50051")]
    pub scheduling_url: String,
    /// Where appointments listens.
    #[arg(long, env = "APPOINTMENTS_URL", default_value = "http://127.0.0.1:50052")]
    pub appointments_url: String,
    /// Where patients listens.
    #[arg(long, env = "PATIENTS_URL", default_value = "http://127.0.0.1:50053")]
    pub patients_url: String,
    /// Where billing listens.
    #[arg(long, env = "BILLING_URL", default_value = "http://127.0.0.1:50054")]
    pub billing_url: String,
    /// Where notify listens.
    #[arg(long, env = "NOTIFY_URL", default_value = "http://127.0.0.1:50055")]
    pub notify_url: String,
    /// Whether gRPC server reflection explains the contract to callers.
    #[arg(long, env = "GATEWAY_REFLECTION", default_value_t = true, action = ArgAction::Set)]
    pub reflection: bool,
    /// Origins whose pages may call by grpc-web, comma-separated, such as `https://desk.example.org`; empty = pages of this
    /// address only.
    #[arg(long, env = "GATEWAY_CORS_ORIGINS", default_value = "", hide_default_value = true)]
    pub cors_origins: Origins,
    /// How the world reaches this address, such as `https://clinic.example.org`. Providers sign the URL they call, so it must
    /// be theirs. Absent = plain HTTP at the host that the request names; what a proxy in front claims is not believed.
    #[arg(long, env = "GATEWAY_PUBLIC_URL")]
    pub public_url: Option<Origin>,
}

/// A comma-separated list of origins, perhaps empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(pub Vec<Origin>);

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_a_list_that_may_be_empty() {
        assert_eq!("".parse(), Ok(Origins::default()));
        let two: Origins = "https://a.example, http://localhost:3000/,".parse().unwrap();
        let headers: Vec<_> = two.0.iter().map(Origin::header).collect();
        assert_eq!(headers, ["https://a.example", "http://localhost:3000"]);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in [
            "*",
            "null",
            "clinic.example",
            "ftp://a.example",
            "https://a.example/path",
            "https://u@a.example",
        ] {
            assert!(bad.parse::<Origins>().is_err(), "{bad}");
        }
    }
}

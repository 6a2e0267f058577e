//! What an operator can set.

use std::str::FromStr;

use phonenumber::country;

/// Options of the patients service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// What every service needs.
    #[command(flatten)]
    pub service: kit::config::Service,
    /// Country (ISO 3166, two letters) whose national notation a phone number without a country code is read in.
    #[arg(long, env = "CLINIC_DEFAULT_REGION", default_value = "US")]
    pub default_region: Region,
}

/// A country that telephone numbers belong to.
#[derive(Clone, Copy, Debug)]
pub struct Region(pub country::Id);

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no ISO 3166 country such as US"))
    }
}

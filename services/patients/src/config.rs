//! What an operator can set.

use std::path::PathBuf;
use std::str::FromStr;

use phonenumber::country;

/// Name of the file of the keys, unless told otherwise.
pub const KEYS_FILE: &str = "patients.keys";

/// Options of the patients service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// What every service needs.
    #[command(flatten)]
    pub service: kit::config::Service,
    /// Country (ISO 3166, two letters) whose national notation a phone number without a country code is read in.
    #[arg(long, env = "CLINIC_DEFAULT_REGION", default_value = "US")]
    pub default_region: Region,
    /// File of the keys that contact data and answers are sealed with, made on the first start. Without it the data is lost: keep a
    /// copy apart from the database. All replicas need the same one. [default: patients.keys beside the service's key]
    #[arg(long = "patients-keys", env = "PATIENTS_KEYS")]
    pub keys: Option<PathBuf>,
}

impl Config {
    /// The file of the keys.
    pub fn keys_file(&self) -> PathBuf {
        let beside = || self.service.identity.service_key_file.with_file_name(KEYS_FILE);
        self.keys.clone().unwrap_or_else(beside)
    }
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

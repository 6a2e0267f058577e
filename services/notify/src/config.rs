//! What an operator can set.

use std::fmt;

use kit::config::Origin;

use crate::words::Language;

/// Texts a second unless told otherwise: what a short code is given.
pub const SMS_RATE: u32 = 100;

/// Options of the notify service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// What every service needs.
    #[command(flatten)]
    pub service: kit::config::Service,
    /// The patients service: numbers, consent, languages.
    #[arg(long, env = "PATIENTS_URL", default_value = "http://127.0.0.1:50053")]
    pub patients_url: String,
    /// The scheduling service: names and phones of clinics.
    #[arg(long, env = "SCHEDULING_URL", default_value = "http://127.0.0.1:50051")]
    pub scheduling_url: String,
    /// The appointments service: visits that patients confirm and cancel.
    #[arg(long, env = "APPOINTMENTS_URL", default_value = "http://127.0.0.1:50052")]
    pub appointments_url: String,
    /// Language of texts to patients who named none, or one without words.
    #[arg(long, env = "CLINIC_DEFAULT_LANGUAGE", value_enum, default_value_t = Language::English)]
    pub default_language: Language,
    /// Where patients see their visits and forms, such as <https://portal.clinic.example>. Empty = messages carry no links.
    #[arg(long, env = "CLINIC_PORTAL_URL", default_value = "")]
    pub portal_url: String,
    /// The SMS provider.
    #[command(flatten)]
    pub sms: Sms,
    /// The mail relay.
    #[command(flatten)]
    pub mail: Mail,
}

/// How e-mails leave.
#[derive(clap::Args, Clone)]
pub struct Mail {
    /// The relay: smtps://user:password@host, or smtp://host:port?tls=required. Unset = nothing goes by e-mail.
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,
    /// Address that e-mails come from.
    #[arg(long, env = "MAIL_FROM", default_value = "clinic@localhost")]
    pub mail_from: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("mail_from", &self.mail_from).finish_non_exhaustive()
    }
}

/// Account at the SMS provider.
#[derive(clap::Args, Clone)]
pub struct Sms {
    /// Where Twilio's protocol is spoken.
    #[arg(long, env = "SMS_API_BASE", default_value = "https://api.twilio.com")]
    pub sms_api_base: String,
    /// Account: AC and 32 hexadecimal digits.
    #[arg(long, env = "SMS_ACCOUNT_SID")]
    pub sms_account_sid: String,
    /// The account's token.
    #[arg(long, env = "SMS_AUTH_TOKEN", hide_env_values = true)]
    pub sms_auth_token: String,
    /// Number that texts come from, E.164.
    #[arg(long, env = "SMS_FROM")]
    pub sms_from: String,
    /// Texts a second that this number may send, all replicas together. The provider queues what comes faster.
    #[arg(long, env = "SMS_RATE", default_value_t = SMS_RATE, value_parser = clap::value_parser!(u32).range(1..))]
    pub sms_rate: u32,
    /// How the provider reaches the gateway, such as `https://clinic.example.org`: where it tells what became of texts, at
    /// `/webhooks/sms/status`. Absent = it is not asked to; then webhooks are checked at the host that their requests name.
    #[arg(long, env = "SMS_PUBLIC_URL")]
    pub sms_public_url: Option<Origin>,
}

impl fmt::Debug for Sms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sms").field("sms_api_base", &self.sms_api_base).finish_non_exhaustive()
    }
}

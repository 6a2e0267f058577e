//! `clinic token`: a token of the local development issuer.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Args;
use kit::auth::{role_names, role_of_name};
use kit::clock::Clock;
use proto::clinic::auth::v1::Role;

use crate::data_dir;

/// Whose token.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  export TOKEN=$(clinic token --role front_desk)\n  \
                        clinic token --role patient --subject 6f9c2f7e-…   (a patient's own id)")]
pub struct Token {
    /// What the caller may do: patient, front_desk, provider, manager, billing, admin or service. May be given several times.
    #[arg(long = "role", required = true, value_name = "ROLE", value_parser = role)]
    roles: Vec<Role>,
    /// Who the caller is: a staff account's name [default: demo], or the id of a patient.
    #[arg(long)]
    subject: Option<String>,
    /// How long it is valid.
    #[arg(long, default_value_t = 12)]
    hours: u16,
    /// The suite's data folder.
    #[arg(long, env = "CLINIC_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

fn role(name: &str) -> Result<Role, String> {
    role_of_name(name).ok_or_else(|| format!("choose one of: {}", role_names().join(", ")))
}

/// Prints the token.
pub fn run(token: &Token) -> anyhow::Result<()> {
    let data = data_dir::resolve(token.data_dir.as_deref())?;
    let (_, issuer) = data_dir::identity(&data_dir::identity_folder(&data))?;
    let subject = match &token.subject {
        Some(subject) => subject,
        None if token.roles.contains(&Role::Patient) => {
            anyhow::bail!("a patient's token needs --subject, the patient's id")
        }
        None => "demo",
    };
    // Tokens live by the machine's clock, also beside a simulated suite.
    let ttl = TimeDelta::hours(i64::from(token.hours));
    println!("{}", issuer.sign(subject, &token.roles, Clock::System.now(), ttl)?);
    Ok(())
}

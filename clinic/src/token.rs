//! `clinic token`: a token of the local development issuer.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Args;
use kit::auth::{role_names, role_of_name};
use kit::clock::Clock;

use crate::data_dir;

/// Whose token.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  export TOKEN=$(clinic token --role front_desk)\n  \
                        clinic token --role patient --subject 6f9c2f7e-…   (a patient's own id)")]
pub struct Token {
    /// What the caller may do; may be given several times.
    #[arg(long = "role", required = true, value_parser = role_parser())]
    roles: Vec<String>,
    /// Who the caller is: a staff account's name, or the id of a patient.
    #[arg(long, default_value = "demo", required_if_eq("roles", "patient"))]
    subject: String,
    /// How long it is valid.
    #[arg(long, default_value_t = 12)]
    hours: u16,
    /// The suite's data folder.
    #[arg(long, env = "CLINIC_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

fn role_parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(role_names())
}

/// Prints the token.
pub fn run(token: &Token) -> anyhow::Result<()> {
    let data = data_dir::resolve(token.data_dir.as_deref())?;
    let (_, issuer) = data_dir::identity(&data_dir::identity_folder(&data))?;
    let roles: Vec<_> = token.roles.iter().filter_map(|name| role_of_name(name)).collect();
    // Tokens live by the machine's clock, also beside a simulated suite.
    let ttl = TimeDelta::hours(i64::from(token.hours));
    println!("{}", issuer.sign(&token.subject, &roles, Clock::System.now(), ttl)?);
    Ok(())
}

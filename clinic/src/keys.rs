//! `clinic keys`: the keys that patient data is sealed with.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use patients::seal::Keys;

use crate::data_dir;

/// Which file, and what to do.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clinic keys rotate\n  clinic keys rotate --patients-keys /run/keys/patients.keys\n\n\
                        Keep a copy of the file, apart from copies of the database: without it patient data cannot be read."
)]
pub struct CommandLine {
    /// The file of the keys [default: the one in the data folder]
    #[arg(long, env = "PATIENTS_KEYS", global = true)]
    patients_keys: Option<PathBuf>,
    /// The suite's data folder.
    #[arg(long, env = "CLINIC_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the file, for replicas that cannot write it themselves: a secret they all mount. One that exists stays as it is.
    Create,
    /// Add a key that seals from now on. Running services take it within seconds and seal everything anew, without a pause; nothing
    /// is lost if they do not run.
    Rotate,
}

/// Makes or changes the file.
pub fn run(line: &CommandLine) -> anyhow::Result<()> {
    let file = match &line.patients_keys {
        Some(file) => file.clone(),
        None => {
            let data = data_dir::resolve(line.data_dir.as_deref())?;
            data_dir::identity_folder(&data).join(patients::config::KEYS_FILE)
        }
    };
    match line.command {
        Command::Create => {
            Keys::create(&file)?;
            println!("{} was made; copy it to where its backups are", file.display());
        }
        Command::Rotate => {
            let id = Keys::add(&file)?;
            println!("key {id} was added to {}; copy the file to where its backups are", file.display());
        }
    }
    Ok(())
}

//! The race as a program; `cargo xtask race` builds the services and starts it.

use std::process::ExitCode;

use clap::Parser;

/// Clients race for the same slots, providers and rooms while services are killed; then every promise is checked.
///
/// Prints one table. The exit code is 0 when nothing was broken, 1 when something was, 2 when the race could not be run.
#[derive(Parser)]
#[command(
    name = "race",
    after_help = "Examples:\n  cargo xtask race                        20,000 attempts\n  cargo xtask race --seed 7               as another run had it\n  \
                  cargo xtask race --attempts 1000000     a few hours\n  cargo xtask race --kill-every 0         nobody is killed"
)]
struct Cli {
    #[command(flatten)]
    options: race::run::Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    match race::run::run(&Cli::parse().options).await {
        Ok(outcome) => {
            print!("{}", race::report::table(&outcome));
            if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("race: {error:#}");
            ExitCode::from(2)
        }
    }
}

//! Measures running services as their callers meet them, each a process of its own beside this one, over loopback. Progress goes
//! to stderr, the figures to stdout as one JSON object; `cargo xtask bench` reports them beside their limits.

mod agenda;
mod booking;
mod load;
mod notify;
mod patients;
mod processes;
mod quarter;
mod roster;
mod search;
mod waitlist;
mod webhooks;

use clap::Parser;

const EXAMPLE: &str =
    "Example:\n  cargo build --release -p scheduling -p gateway -p bench && target/release/bench search";

/// Measures running services.
#[derive(Parser)]
#[command(after_help = EXAMPLE)]
enum Command {
    /// SearchAvailability at one replica, through the gateway, and after a change at another replica.
    Search,
    /// BookAppointment: with and without a co-pay, raced for, its effect elsewhere, and among many past appointments.
    Booking(booking::Options),
    /// Webhooks of the payment provider: how soon billing acknowledges them.
    Webhooks(webhooks::Options),
    /// Due reminders handed to the SMS provider: how fast, in how much memory.
    Notify(notify::Options),
    /// The waitlist: from a cancellation until the text of the offer has left.
    Waitlist(waitlist::Options),
    /// A quarter of a busy clinic, simulated: how much freed time is refilled, with the waitlist and without.
    Quarter(quarter::Options),
    /// SearchPatients among a million, how long it takes to seal them, and an import.
    Patients(patients::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let figures = match Command::parse() {
        Command::Search => search::measure().await?,
        Command::Booking(options) => booking::measure(&options).await?,
        Command::Webhooks(options) => webhooks::measure(&options).await?,
        Command::Notify(options) => notify::measure(&options).await?,
        Command::Waitlist(options) => waitlist::measure(&options).await?,
        Command::Quarter(options) => quarter::measure(&options).await?,
        Command::Patients(options) => patients::measure(&options).await?,
    };
    println!("{figures}");
    Ok(())
}

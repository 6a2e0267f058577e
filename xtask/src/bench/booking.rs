//! Booking: runs the program of `bench/`, and reports what it measured.

use super::engine::time;
use super::program::Figures;
use crate::workspace::Workspace;

/// What is measured, in numbers: see `bench booking --help`.
const SIZE: [&str; 6] = ["--seconds", "10", "--slots", "200", "--past", "1000000"];
/// Limits from the design.
const RATE_LIMIT: &str = "1,000/s, p99 30 ms";
const PEER_LIMIT: f64 = 0.35;
const COPAY_LIMIT: &str = "300/s";
const RACE_LIMIT: &str = "p99 50 ms";
const EFFECT_LIMIT: &str = "p99 250 ms";
const PAST_LIMIT: f64 = 1.25;

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    report(&Figures::measure(
        workspace,
        &["appointments", "scheduling", "billing", "sandbox"],
        "booking",
        &SIZE,
    )?)
}

fn report(figures: &Figures) -> anyhow::Result<String> {
    let number = |at: &str| figures.number(at);
    let times = |at: &str| -> anyhow::Result<String> {
        let [p50, p99, max] = ["p50", "p99", "max"].map(|which| figures.time(&format!("{at}/{which}_us")));
        Ok(format!("{} | {} | {}", p50?, p99?, max?))
    };
    let rate = |at: &str| number(&format!("{at}/per_second"));
    let among_past = rate("/past").is_ok();
    let mut text = format!(
        "200 providers of 20 clinics, visits of 15 minutes. PostgreSQL and NATS durable, appointments, scheduling, billing, the \
         sandbox and the callers are processes of their own on this one machine, and share its cores; release build, logging as by \
         default, real tokens, a request id in each call, {} callers on as many connections, {} where they wait for a co-pay, \
         each runs {} s. Whatever else the machine did is in the figures: its load average was {:.1} at the end, of which the bench's own programs are a part.\n\n\
         | work | a second | p50 | p99 | longest | limit |\n|---|---|---|---|---|---|\n",
        number("/callers")?,
        number("/payers")?,
        number("/seconds")?,
        number("/load_average")?,
    );
    for (work, at, limit) in [
        ("BookAppointment without a co-pay; relay and scheduling follow meanwhile", "/booking", RATE_LIMIT),
        (
            "peer: pgbench, the same rows under the same constraints on 16 connections, at once after",
            "/peer",
            "–",
        ),
        ("BookAppointment with a co-pay, authorized at the sandbox", "/copay", COPAY_LIMIT),
        ("from the transaction's start to the row of scheduling's busy time", "/effect", EFFECT_LIMIT),
    ] {
        text += &format!("| {work} | {:.0}/s | {} | {limit} |\n", rate(at)?, times(at)?);
    }
    if among_past {
        let work =
            format!("BookAppointment without a co-pay among {} past appointments", number("/past/rows")?);
        text += &format!("| {work} | {:.0}/s | {} | see below |\n", rate("/past")?, times("/past")?);
    }
    let race = |at: &str| number(&format!("/race/{at}"));
    text += &format!(
        "| {} clients for each of {} slots, two providers and two rooms | – | {} | {RACE_LIMIT} |\n",
        race("clients")?,
        race("slots")?,
        times("/race")?,
    );
    text += "\n| figure | measured | limit |\n|---|---|---|\n";
    text += &format!(
        "| bookings for one by pgbench | {:.2} | {PEER_LIMIT} |\n",
        rate("/booking")? / rate("/peer")?
    );
    if among_past {
        text += &format!(
            "| time of a booking among past appointments, for the same without | {:.2} | {PAST_LIMIT} |\n",
            rate("/booking")? / rate("/past")?
        );
    }
    // Folded from zero, for the sum of no floats is -0.
    let surfaced = figures.named("/race/surfaced")?.iter().fold(0.0, |sum, (_, times)| sum + times);
    text += &format!("| double bookings of the race | {} | 0 |\n", race("doubles")?);
    text += &format!("| errors of the race other than taken: deadlocks and all else | {surfaced} | 0 |\n");
    text += &format!(
        "| deadlocks of the race that the database ended and a retry hid | {} | – |\n",
        race("deadlocks_inside")?
    );
    text += &format!(
        "| from the last booking without a co-pay until scheduling had followed all | {} | – |\n",
        figures.time("/booking/behind_us")?
    );
    text += "\nProcessor time for one booking, by program:\n\n| program | without a co-pay | with | without, among past ones |\n|---|---|---|---|\n";
    let spent = |run: &str, program: &str| number(&format!("/{run}/spent_us/{program}")).unwrap_or_default();
    for (name, _) in figures.named("/copay/spent_us")? {
        let of = ["booking", "copay", "past"].map(|run| spent(run, name));
        if of.iter().sum::<f64>() >= 1.0 {
            let [without, with, past] = of.map(time);
            text += &format!("| {name} | {without} | {with} | {past} |\n");
        }
    }
    Ok(text)
}

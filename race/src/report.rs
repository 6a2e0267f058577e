//! The outcome as a table: what was tried, what came of it, how long it took, and what was broken.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::TimeDelta;

use crate::check;
use crate::facts::{Answer, Call};
use crate::run::Outcome;

/// Violations that are printed; the rest stand in the file.
const SHOWN: usize = 20;

fn millis(took: TimeDelta) -> f64 {
    took.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e3
}

/// The value that so many of a hundred do not exceed.
fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

fn latency<'a>(calls: impl Iterator<Item = &'a Call>) -> String {
    let mut took: Vec<f64> = calls.map(|call| millis(call.ended - call.begun)).collect();
    took.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(&took, 50), percentile(&took, 99));
    format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {:.1} ms", took.last().copied().unwrap_or_default())
}

/// The table.
pub fn table(outcome: &Outcome) -> String {
    let Outcome { log, rows, .. } = outcome;
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut done, mut silent) = (0, 0);
    for call in log {
        match &call.answer {
            Answer::Done(_) => done += 1,
            Answer::Refused(refusal) => *refused.entry(&refusal.reason).or_default() += 1,
            Answer::Nothing(_) => silent += 1,
        }
    }
    let secs = outcome.raced.as_secs_f64();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<24} {value}");
    };
    line("seed", outcome.seed.to_string());
    line("attempts", format!("{} in {secs:.1} s, {:.0}/s", log.len(), log.len() as f64 / secs));
    line("sent", log.iter().map(|call| u64::from(call.tries)).sum::<u64>().to_string());
    line("acknowledged", done.to_string());
    line("refused", refused.values().sum::<usize>().to_string());
    for (reason, count) in &refused {
        line(&format!("  {}", if reason.is_empty() { "(no reason)" } else { reason }), count.to_string());
    }
    line("never answered", silent.to_string());
    line("kill -9", rows.kills.len().to_string());
    let surfaced = rows.surfaced_deadlocks.len();
    line("deadlocks", format!("{surfaced} surfaced, {} in the database", outcome.deadlocks));
    line("latency, all", latency(log.iter()));
    line("latency, one try", latency(log.iter().filter(|call| call.tries == 1)));
    let sagas = check::sagas(rows, log);
    let longest = |of: fn(&check::Saga) -> TimeDelta| sagas.iter().map(of).max().map_or(0.0, millis) / 1e3;
    line(
        "bookings with a co-pay",
        format!(
            "{}, longest {:.1} s, undisturbed {:.1} s",
            sagas.len(),
            longest(|saga| saga.took),
            longest(|saga| saga.undisturbed)
        ),
    );
    line(
        "at rest after",
        outcome.rested.map_or("never".to_owned(), |rest| format!("{:.1} s", rest.as_secs_f64())),
    );
    line(
        "checked",
        format!(
            "{} appointments, {} versions, {} charges, {} payments",
            rows.reservations.len(),
            rows.changes.len(),
            rows.charges.len(),
            rows.intents.len()
        ),
    );
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for change in rows.changes.values() {
        *versions.entry(format!("{:?}", change.state)).or_default() += 1;
    }
    let versions: Vec<String> = versions.iter().map(|(state, count)| format!("{count} {state}")).collect();
    line("  versions", versions.join(", "));
    line("violations", outcome.violations.len().to_string());
    for violation in outcome.violations.iter().take(SHOWN) {
        let _ = writeln!(text, "  {violation}");
    }
    if !outcome.violations.is_empty() {
        let file = outcome.folder.join("violations.txt");
        let _ = writeln!(text, "  all in {}; repeat with --seed {}", file.display(), outcome.seed);
    }
    text
}

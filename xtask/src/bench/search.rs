//! Search over gRPC: runs the programs of `bench/`, and reports what they measured.

use super::program::Figures;
use crate::workspace::Workspace;

/// Limits from the design, and for a change to be seen everywhere.
const P50_LIMIT: &str = "1 ms";
const RATE_LIMIT: &str = "5,000/s";
const REPLICA_LIMIT: &str = "250 ms";

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    report(&Figures::measure(workspace, &["scheduling", "gateway"], "search", &[])?)
}

fn report(figures: &Figures) -> anyhow::Result<String> {
    let number = |at: &str| figures.number(at);
    let show = |at: &str| figures.time(at);
    let mut text = format!(
        "The search of 100 providers × 14 days above, one page of 50: an answer of {} bytes. PostgreSQL, NATS, two replicas of \
         scheduling, the gateway and the callers are processes of their own on this one machine, and share its cores; release \
         build, logging as by default, a real token checked in each call, HTTP/2 over loopback. The peer is the same call \
         without work: grpc.health.v1 Check.\n\n\
         | one caller, {} calls one after another | p50 | p99 | limit of p50 |\n|---|---|---|---|\n",
        number("/bytes")?,
        number("/search/alone/calls")?,
    );
    for (who, at, limit) in [
        ("SearchAvailability", "/search/alone", P50_LIMIT),
        ("the same through the gateway", "/gateway/alone", "–"),
        ("peer: health check", "/floor/alone", "–"),
    ] {
        let (p50, p99) = (show(&format!("{at}/p50_us"))?, show(&format!("{at}/p99_us"))?);
        text += &format!("| {who} | {p50} | {p99} | {limit} |\n");
    }
    text += &format!(
        "\n| many callers over {} connections | calls | p50 | p99 | the server's processor time for one | limit |\n|---|---|---|---|---|---|\n",
        number("/connections")?
    );
    let crowds = figures.count("/search/crowds");
    let searches = (0..crowds).map(|n| ("SearchAvailability", format!("/search/crowds/{n}"), RATE_LIMIT));
    let others = [
        ("the same through the gateway, its time included", "/gateway/crowd".to_owned(), "–"),
        ("peer: health check", "/floor/crowd".to_owned(), "–"),
    ];
    for (who, at, limit) in searches.chain(others) {
        text += &format!(
            "| {who}, {} callers | {:.0}/s | {} | {} | {} | {limit} |\n",
            number(&format!("{at}/callers"))?,
            number(&format!("{at}/per_second"))?,
            show(&format!("{at}/p50_us"))?,
            show(&format!("{at}/p99_us"))?,
            show(&format!("{at}/served_us"))?,
        );
    }
    text += &format!(
        "\n| {} changes of a calendar, one after another | p50 | p99 | longest | limit |\n|---|---|---|---|---|\n\
         | from asking one replica for the change until a search at the other finds it | {} | {} | {} | {REPLICA_LIMIT} |\n",
        number("/replicas/calls")?,
        show("/replicas/p50_us")?,
        show("/replicas/p99_us")?,
        show("/replicas/max_us")?,
    );
    Ok(text)
}

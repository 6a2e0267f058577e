//! Callers: one after another for how long a call takes, many at once for how many calls there can be.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::Status;

/// Calls before the first that counts: connections are made, memory is warm.
const WARM_UP_CALLS: usize = 500;

/// Someone who calls, and waits for the answer before calling again.
pub(crate) trait Caller: Send + 'static {
    /// One call, its answer read.
    fn call(&mut self) -> impl Future<Output = Result<(), Status>> + Send;
}

/// How long each of many things took, shortest first.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that `share` of all stayed within (nearest rank).
    fn within(&self, share: f64) -> Duration {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// In microseconds.
    pub(crate) fn figures(&self) -> Value {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        json!({
            "calls": self.0.len(),
            "p50_us": micros(self.within(0.5)),
            "p99_us": micros(self.within(0.99)),
            "max_us": micros(self.within(1.0)),
        })
    }
}

/// One caller, `calls` times.
pub(crate) async fn in_turn(caller: &mut impl Caller, calls: usize) -> Result<Times, Status> {
    for _ in 0..WARM_UP_CALLS {
        caller.call().await?;
    }
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = Instant::now();
        caller.call().await?;
        times.push(begun.elapsed());
    }
    Ok(Times::new(times))
}

/// All of them at once, for a while. Answers how long their calls took.
pub(crate) async fn at_once(callers: Vec<impl Caller>, length: Duration) -> anyhow::Result<Times> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut times = vec![];
            while begun.elapsed() < length {
                let sent = Instant::now();
                caller.call().await?;
                times.push(sent.elapsed());
            }
            Ok::<_, Status>(times)
        });
    }
    let mut times = vec![];
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    Ok(Times::new(times))
}

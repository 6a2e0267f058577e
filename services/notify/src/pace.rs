//! How fast one sender sends: places in its queue, booked in the database.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use crate::store::sender;

/// No more is claimed while the queue is longer than this: what waits in it is leased.
const QUEUE: Duration = Duration::from_secs(5);

/// The queue of a sender.
#[derive(Clone, Debug)]
pub struct Pace {
    pool: PgPool,
    sender: String,
    /// Texts a second.
    rate: f64,
}

impl Pace {
    /// The queue of `sender`, who sends `rate` texts a second.
    pub fn new(pool: PgPool, sender: &str, rate: u32) -> Self {
        Self { pool, sender: sender.to_owned(), rate: f64::from(rate.max(1)) }
    }

    /// Texts to claim at once, `most` or fewer: not more than the queue takes.
    pub fn batch(&self, most: u32) -> u32 {
        most.min((self.rate * QUEUE.as_secs_f64()) as u32).max(1)
    }

    /// How long to wait until more should be claimed.
    pub async fn wait(&self) -> sqlx::Result<Duration> {
        Ok(sender::booked(&self.pool, &self.sender).await?.saturating_sub(QUEUE))
    }

    /// Books `count` places; answers when each text may leave.
    pub async fn book(&self, count: usize) -> sqlx::Result<Vec<Instant>> {
        if count == 0 {
            return Ok(vec![]);
        }
        let first = Instant::now() + sender::book(&self.pool, &self.sender, count, self.rate).await?;
        Ok((0..count).map(|n| first + Duration::from_secs_f64(n as f64 / self.rate)).collect())
    }
}

//! The queue of a number that texts come from: all replicas together send no faster than its rate.

use std::time::Duration;

use sqlx::PgPool;

/// Books `count` places in the queue of `sender`, which sends `rate` texts a second. Answers how long to wait for the first; the
/// others follow at that rate.
pub async fn book(pool: &PgPool, sender: &str, count: usize, rate: f64) -> sqlx::Result<Duration> {
    let wait = sqlx::query_scalar!(
        r#"insert into notify.sender (number, free_at) values ($1, clock.now() + make_interval(secs => $2))
           on conflict (number) do update
           set free_at = greatest(sender.free_at, clock.now()) + make_interval(secs => $2)
           returning extract(epoch from free_at - clock.now())::float8 - $2 as "wait!""#,
        sender,
        count as f64 / rate,
    )
    .fetch_one(pool)
    .await?;
    Ok(Duration::try_from_secs_f64(wait).unwrap_or_default())
}

/// How long the queue of `sender` is.
pub async fn booked(pool: &PgPool, sender: &str) -> sqlx::Result<Duration> {
    let wait = sqlx::query_scalar!(
        r#"select extract(epoch from free_at - clock.now())::float8 as "wait!" from notify.sender where number = $1"#,
        sender,
    )
    .fetch_optional(pool)
    .await?;
    Ok(Duration::try_from_secs_f64(wait.unwrap_or_default()).unwrap_or_default())
}

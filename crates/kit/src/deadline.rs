//! The caller's deadline: honoured while a request is served and passed on, shortened, to every call made for it.
//!
//! `grpc-timeout` is parsed once, kept in a task-local while the handler runs, and read again by [`crate::client`]. A spawned
//! task does not inherit it, which is what work that must finish regardless wants.

use std::time::{Duration, Instant};

use http::HeaderMap;
use tonic::Status;

use crate::status::Fault;

/// The header, as <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> spells it.
pub const HEADER: &str = "grpc-timeout";
/// Work for a caller who names no deadline ends after this.
pub const DEFAULT: Duration = Duration::from_secs(30);
/// No call, whatever its header says, is served longer; streams that live on purpose renew themselves.
pub const LONGEST: Duration = Duration::from_secs(3600);

tokio::task_local! {
    static DEADLINE: Instant;
}

/// The current request's deadline, if this code runs for one.
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// Time left for the current request, at most `own`; zero when it is already late.
pub fn left(own: Duration) -> Duration {
    current().map_or(own, |deadline| deadline.saturating_duration_since(Instant::now()).min(own))
}

/// Runs `work` under a deadline that calls made inside it can see.
pub async fn scope<T>(deadline: Instant, work: impl Future<Output = T>) -> T {
    DEADLINE.scope(deadline, work).await
}

/// The DEADLINE_EXCEEDED status.
pub fn exceeded() -> Status {
    let message = "the deadline passed before the answer was ready";
    Fault::new(tonic::Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message).into_status("clinic")
}

/// The timeout that a request's headers ask for; a malformed one counts as none.
pub fn from_headers(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The protocol allows at most eight digits.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The header's text for a timeout.
pub fn to_header(timeout: Duration) -> String {
    const EIGHT_DIGITS: u128 = 99_999_999;
    match timeout.as_micros() {
        micros if micros <= EIGHT_DIGITS => format!("{micros}u"),
        _ => format!("{}m", timeout.as_millis().min(EIGHT_DIGITS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_survive_the_header() {
        for timeout in [0, 1, 99_999_999, 100_000_000, 3_600_000_000].map(Duration::from_micros) {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, to_header(timeout).parse().expect("ASCII"));
            assert_eq!(from_headers(&headers), Some(timeout));
        }
    }

    #[test]
    fn malformed_timeouts_count_as_none() {
        for bad in ["", "S", "12", "123456789S", "-1S", "1x", "١S"] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, http::HeaderValue::from_bytes(bad.as_bytes()).expect("bytes"));
            assert_eq!(from_headers(&headers), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_call_made_for_a_request_gets_what_is_left_of_it() {
        assert_eq!(left(Duration::from_secs(5)), Duration::from_secs(5));
        let soon = Instant::now() + Duration::from_secs(1);
        scope(soon, async { assert!(left(Duration::from_secs(5)) <= Duration::from_secs(1)) }).await;
    }
}

//! Published calendars over HTTP: `GET /calendars/<token>.ics`. Who has the link may read; the token is written nowhere.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

use crate::app::App;

/// A reader may show what it has for five minutes without asking.
const CACHE: &str = "private, max-age=300";
/// The address is a secret: what a calendar leads to shall not learn it.
const REFERRER: &str = "no-referrer";
/// After how many seconds to come back while the database is away.
const RETRY_SECS: &str = "30";
/// Octets of the digest that tells one state of a calendar from another.
const DIGEST: usize = 16;

/// The route, for the service's port.
pub(crate) fn router(app: App) -> Router {
    Router::new().route("/calendars/{file}", get(read)).with_state(app)
}

async fn read(State(app): State<App>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let Some(token) = file.strip_suffix(".ics") else { return missing() };
    match app.published(token).await {
        Ok(Some(text)) => answer(text, &headers),
        Ok(None) => missing(),
        Err(error) => refusal(&error.into()),
    }
}

fn answer(text: String, headers: &HeaderMap) -> Response {
    let etag = etag(&text);
    let seen = known(headers, &etag);
    let common = [(ETAG, etag.as_str()), (CACHE_CONTROL, CACHE), (REFERRER_POLICY, REFERRER)];
    if seen {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, "text/calendar; charset=utf-8")], text).into_response()
}

/// The calendar may be there and cannot be read; why, the log says.
fn refusal(status: &Status) -> Response {
    if status.code() == Code::Unavailable {
        let retry = [(RETRY_AFTER, RETRY_SECS)];
        let what = "the calendar cannot be read now; try again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, retry, what).into_response();
    }
    (StatusCode::INTERNAL_SERVER_ERROR, "the calendar cannot be read\n").into_response()
}

fn missing() -> Response {
    let headers = [(CACHE_CONTROL, "no-store"), (REFERRER_POLICY, REFERRER)];
    (StatusCode::NOT_FOUND, headers, "there is no such calendar\n").into_response()
}

/// Names what a file says. Weak: two that differ in when they were written say the same.
fn etag(text: &str) -> String {
    let mut digest = Sha256::new();
    text.split("\r\n").filter(|line| !line.starts_with("DTSTAMP:")).for_each(|line| digest.update(line));
    format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&digest.finalize()[..DIGEST]))
}

/// Whether the reader has this state (RFC 9110, section 13.1.2; the comparison is weak).
fn known(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_in_their_stamps_alone_are_one_state() {
        let file =
            |stamp: &str, what: &str| etag(&format!("BEGIN:VEVENT\r\nDTSTAMP:{stamp}\r\nSUMMARY:{what}\r\n"));
        assert_eq!(file("1", "Off"), file("2", "Off"));
        assert_ne!(file("1", "Off"), file("1", "Booked"));
    }

    #[test]
    fn a_reader_names_the_states_it_has_in_one_list_or_more() {
        let known = |values: &[&'static str]| {
            let headers = values.iter().map(|v| (IF_NONE_MATCH, v.parse().unwrap()));
            known(&headers.collect(), "W/\"a\"")
        };
        assert!(
            known(&["W/\"a\""]) && known(&["\"b\", \"a\""]) && known(&["\"b\"", "W/\"a\""]) && known(&["*"])
        );
        assert!(!known(&[]) && !known(&["W/\"b\""]) && !known(&["a"]));
    }
}

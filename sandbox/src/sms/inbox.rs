//! The phones' inboxes as plain HTML, so that a person can read and answer the demo's texts.

use axum::{
    Form, Router,
    extract::{Path, State as Extract},
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Deserialize;

use super::{inbound, message::Message};
use crate::State;

/// Texts shown of one phone, and phones listed, newest first.
const SHOWN: usize = 100;
/// Texts looked through for the phones that they went to or came from.
const LOOKED_THROUGH: usize = 10_000;
const STYLE: &str = "body{font:16px/1.4 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}\
                     li{list-style:none;margin:.4rem 0;padding:.5rem .8rem;border-radius:.6rem;background:#eee;\
                     white-space:pre-wrap;overflow-wrap:anywhere}li.mine{background:#d6e9ff;margin-left:4rem}ul{padding:0}\
                     small{color:#555;display:block}iframe{border:0;width:100%;height:55vh}textarea{width:100%}";

pub(crate) fn router() -> Router<State> {
    Router::new()
        .route("/sandbox/inbox", get(phones))
        .route("/sandbox/inbox/{phone}", get(phone).post(send))
        .route("/sandbox/inbox/{phone}/texts", get(texts))
}

/// A page; `refresh` = seconds until it loads itself again.
fn page(title: &str, refresh: Option<u32>, body: &str) -> Html<String> {
    let refresh =
        refresh.map(|secs| format!("<meta http-equiv=\"refresh\" content=\"{secs}\">")).unwrap_or_default();
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">{refresh}<title>{title}</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>"
    ))
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Every phone that texts went to or came from, the one with the newest text first.
async fn phones(Extract(state): Extract<State>) -> Html<String> {
    let store = state.store();
    let mut listed: Vec<(&str, &Message)> = vec![];
    for message in store.all::<Message>().rev().take(LOOKED_THROUGH) {
        let phone = message.phone();
        if listed.len() < SHOWN && !listed.iter().any(|(known, _)| *known == phone) {
            listed.push((phone, message));
        }
    }
    let row = |(phone, message): (&str, &Message)| {
        let phone = escape(phone);
        let body = escape(message.body());
        format!("<li><a href=\"/sandbox/inbox/{phone}\">{phone}</a><small dir=\"auto\">{body}</small></li>")
    };
    let rows: String = listed.into_iter().map(row).collect();
    let rows = if rows.is_empty() { "<p>No texts yet.</p>".to_owned() } else { format!("<ul>{rows}</ul>") };
    page("Phones", Some(5), &format!("<h1>Phones</h1>{rows}"))
}

/// One phone: its texts, and a place to write one.
async fn phone(Path(phone): Path<String>) -> Html<String> {
    let phone = escape(&phone);
    page(
        &phone,
        None,
        &format!(
            "<p><a href=\"/sandbox/inbox\">Phones</a></p><h1>{phone}</h1>\
             <iframe src=\"/sandbox/inbox/{phone}/texts\" title=\"Texts\"></iframe>\
             <form method=\"post\"><label>Answer from this phone<textarea name=\"body\" rows=\"2\" maxlength=\"1600\" required \
             autofocus></textarea></label><button>Send</button></form>"
        ),
    )
}

/// The texts of one phone, newest first.
async fn texts(Extract(state): Extract<State>, Path(phone): Path<String>) -> Html<String> {
    let store = state.store();
    let of_phone = store.all::<Message>().rev().filter(|message| message.phone() == phone).take(SHOWN);
    let row = |message: &Message| {
        let class = if message.is_inbound() { " class=\"mine\"" } else { "" };
        let (at, status) = (message.created().format("%Y-%m-%d %H:%M UTC"), message.status().name());
        format!("<li{class} dir=\"auto\">{}<small>{at}, {status}</small></li>", escape(message.body()))
    };
    let rows: String = of_phone.map(row).collect();
    page("Texts", Some(2), &format!("<ul>{rows}</ul>"))
}

#[derive(Deserialize)]
struct Answer {
    body: String,
}

/// A person answers from the page.
async fn send(
    Extract(state): Extract<State>,
    Path(phone): Path<String>,
    headers: HeaderMap,
    Form(answer): Form<Answer>,
) -> Response {
    // Another site's page must not write in a visitor's name.
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return StatusCode::FORBIDDEN.into_response();
    }
    match inbound::receive(&state, &phone, None, &answer.body) {
        Ok(_) => Redirect::to(&format!("/sandbox/inbox/{phone}")).into_response(),
        Err((status, sentence)) => (status, sentence).into_response(),
    }
}

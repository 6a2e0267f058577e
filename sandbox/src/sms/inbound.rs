//! Texts from phones: what a person at the other end sends, by script or from the inbox page. The carrier's part is played here too: a
//! phone that said STOP gets no more texts until it says START (twilio.com/docs/messaging/compliance: default keywords).

use axum::http::StatusCode;

use super::SID_DIGITS;
use super::message::{Message, is_e164};
use crate::{State, outbound, store::Kind as _};

/// Words that end texts to a phone, and begin them again, at the real provider.
const STOP: [&str; 9] =
    ["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "STOP ALL"];
const START: [&str; 3] = ["START", "YES", "UNSTOP"];
/// What the carrier says to STOP by itself.
const STOPPED: &str = "You have successfully been unsubscribed. You will not receive any more messages from this number. Reply START \
                       to resubscribe.";

/// What a text says to the carrier: `Some(true)` = no more texts.
pub(crate) fn opts_out(body: &str) -> Option<bool> {
    let word = body.trim().to_uppercase();
    if STOP.contains(&word.as_str()) {
        return Some(true);
    }
    START.contains(&word.as_str()).then_some(false)
}

/// A text from phone `from` reaches `to`, or the number that texted it last; it is told to the suite, signed. Answers the message, or
/// what is wrong.
pub(crate) fn receive(
    state: &State,
    from: &str,
    to: Option<&str>,
    body: &str,
) -> Result<Message, (StatusCode, &'static str)> {
    if !is_e164(from) || !to.is_none_or(is_e164) {
        return Err((StatusCode::BAD_REQUEST, "A number is a plus sign and 8 to 15 digits."));
    }
    let Some(url) = state.settings().sms_inbound_url.clone() else {
        return Err((StatusCode::CONFLICT, "There is nobody to tell: no address for texts received is set."));
    };
    let now = state.now();
    let mut store = state.store();
    let asked = || store.all::<Message>().rev().find(|m| m.to == from)?.from.clone();
    let Some(to) = to.map(str::to_owned).or_else(asked) else {
        return Err((StatusCode::BAD_REQUEST, "Nobody has texted this phone: say to whom it writes."));
    };
    let id = store.new_id(Message::PREFIX, SID_DIGITS);
    let message = Message::received(id, from, &to, body, now);
    store.put(&message);
    if opts_out(body) == Some(true) {
        let id = store.new_id(Message::PREFIX, SID_DIGITS);
        store.put(&Message::by_carrier(id, &to, from, STOPPED, now));
    }
    if let Err(error) = store.commit() {
        tracing::error!(%error, "The journal could not be written.");
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "The journal could not be written."));
    }
    drop(store);
    outbound::deliver_status(
        state,
        "message.received",
        url,
        message.inbound_params(&state.settings().sms_account),
    );
    Ok(message)
}

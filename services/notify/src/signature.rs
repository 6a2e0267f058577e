//! Whether a webhook comes from the SMS provider (<https://www.twilio.com/docs/usage/webhooks/webhooks-security>).
//!
//! The provider signs the URL it calls, and what it posts there: base64 of HMAC-SHA1, by the account's token, over the URL followed by
//! each parameter's name and value in sorted order. A body that is no form is covered by the URL's `bodySHA256` instead.

use axum::http::Uri;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Header that carries the signature.
pub const HEADER: &str = "x-twilio-signature";
/// Parameter of the URL that carries the hash of a body that is no form.
const BODY_HASH: &str = "bodySHA256";
/// Port that the provider names where a URL leaves it out.
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// Why a webhook is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No signature, or one that cannot be read.
    #[error("the signature is missing or malformed")]
    Malformed,
    /// The body is not the one that was signed.
    #[error("the body's hash is missing or another")]
    Body,
    /// The signature is another.
    #[error("the signature does not match")]
    Mismatch,
}

/// What a webhook posted.
#[derive(Clone, Copy, Debug)]
pub enum Posted<'a> {
    /// The parameters of a form, in any order; a name may come again.
    Form(&'a [(String, String)]),
    /// A body of another type, as it came.
    Raw(&'a [u8]),
}

/// Checks `signature`, made by `token`, of a webhook posted to `url`. The provider writes the URL now with its port and now without:
/// both are tried, each compared in constant time.
pub fn verify(token: &str, url: &Uri, posted: Posted<'_>, signature: &str) -> Result<(), Refusal> {
    let signature = STANDARD.decode(signature).map_err(|_| Refusal::Malformed)?;
    if signature.is_empty() {
        return Err(Refusal::Malformed);
    }
    let mut signed: Vec<&(String, String)> = match posted {
        Posted::Form(parameters) => parameters.iter().collect(),
        Posted::Raw(body) => {
            // No secret: whoever sees the body can compute it. That the URL with it is the provider's is what is checked below.
            let right = hex::encode(Sha256::digest(body));
            let named = form_urlencoded::parse(url.query().unwrap_or_default().as_bytes());
            let matches =
                named.into_iter().find(|(name, _)| name == BODY_HASH).is_some_and(|(_, v)| v == right);
            if !matches {
                return Err(Refusal::Body);
            }
            vec![]
        }
    };
    signed.sort_unstable();
    // Said twice, it is signed once.
    signed.dedup();
    let right = |url: String| {
        let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
        mac.update(url.as_bytes());
        for (name, value) in &signed {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
        mac.verify_slice(&signature).is_ok()
    };
    let [without, with] = spellings(url).ok_or(Refusal::Malformed)?;
    // Both are computed, whichever matches.
    if right(without) | right(with) { Ok(()) } else { Err(Refusal::Mismatch) }
}

/// A URL without its port and with it; `None` for one that names no host.
fn spellings(url: &Uri) -> Option<[String; 2]> {
    let (scheme, authority) = (url.scheme()?, url.authority()?);
    let rest = url.path_and_query().map_or("", PathAndQuery::as_str);
    let port = authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { HTTPS_PORT } else { HTTP_PORT });
    let host = without_port(authority);
    Some([format!("{scheme}://{host}{rest}"), format!("{scheme}://{host}:{port}{rest}")])
}

fn without_port(authority: &Authority) -> &str {
    let text = authority.as_str();
    authority.port().map_or(text, |port| &text[..text.len() - port.as_str().len() - 1])
}

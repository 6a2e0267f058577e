//! Webhooks signed by the SMS provider's own helper library, and what it makes of changed ones: `data/sign.py` made them.

use axum::http::Uri;
use notify::signature::{Posted, verify};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    token: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    url: String,
    form: Option<String>,
    json: Option<String>,
    signature: String,
    accepted: bool,
}

#[test]
fn what_the_providers_own_library_signs_is_accepted_and_what_it_refuses_is_refused() {
    let Vectors { token, vectors } =
        serde_json::from_str(include_str!("data/signatures.json")).expect("vectors");
    assert!(vectors.iter().any(|v| v.accepted) && vectors.iter().any(|v| !v.accepted));
    for Vector { name, url, form, json, signature, accepted } in vectors {
        let url: Uri = url.parse().expect("a URL");
        let parameters: Vec<(String, String)> =
            form_urlencoded::parse(form.unwrap_or_default().as_bytes()).into_owned().collect();
        let posted = json.as_ref().map_or(Posted::Form(&parameters), |body| Posted::Raw(body.as_bytes()));
        let verdict = verify(&token, &url, posted, &signature);
        assert_eq!(verdict.is_ok(), accepted, "{name}: {verdict:?}");
    }
}

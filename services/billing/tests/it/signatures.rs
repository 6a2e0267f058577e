//! Webhooks signed by the payment provider's own SDK, and what it makes of changed ones: `data/sign.py` made them.

use billing::config::Secret;
use billing::webhook::verify;
use chrono::DateTime;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    secret: String,
    signed_at: i64,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    payload: String,
    header: String,
    age_secs: i64,
    accepted: bool,
}

#[test]
fn what_the_providers_own_sdk_signs_is_accepted_and_what_it_refuses_is_refused() {
    let Vectors { secret, signed_at, vectors } =
        serde_json::from_str(include_str!("data/signatures.json")).unwrap();
    let secret = Secret::from(secret.as_str());
    assert!(vectors.iter().any(|v| v.accepted) && vectors.iter().any(|v| !v.accepted));
    for Vector { name, payload, header, age_secs, accepted } in vectors {
        let now = DateTime::from_timestamp(signed_at + age_secs, 0).unwrap();
        let verdict = verify(&secret, &header, payload.as_bytes(), now);
        assert_eq!(verdict.is_ok(), accepted, "{name}: {verdict:?}");
    }
}

//! Tokens: what is believed, what is refused, and with which words.

use std::fs::File;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use kit::auth::{AUDIENCE, Caller, DEV_ISSUER, Issuer, Verifier, authorize};
use kit::clock::Clock;
use kit::status::reason;
use proto::clinic::auth::v1::Role;
use serde_json::{Value, json};
use testkit::until;
use tonic::{Code, Status};

use crate::stage::Keys;

/// A method that patients and administrators may call.
const LIST_ACCESS_LOG: &str = "/clinic.patients.v1.PatientService/ListAccessLog";

/// An issuer, and a verifier that believes it.
struct World {
    keys: Keys,
    verifier: Verifier,
}

impl World {
    fn new() -> Self {
        let keys = Keys::new();
        let verifier = Verifier::new(&keys.identity).unwrap();
        Self { keys, verifier }
    }

    /// Claims that are believed.
    fn claims(&self) -> Value {
        let now = Clock::System.now().timestamp();
        json!({ "iss": DEV_ISSUER, "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + 600,
                "roles": ["front_desk"] })
    }

    /// The good claims with one of them replaced, or left out when `value` is null.
    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        let fields = claims.as_object_mut().unwrap();
        match value {
            Value::Null => fields.remove(name),
            value => fields.insert(name.to_owned(), value),
        };
        claims
    }

    fn key_id(&self) -> String {
        self.keys.issuer.jwks()["keys"][0]["kid"].as_str().unwrap().to_owned()
    }

    /// The believed issuer's signature over `claims`.
    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.key_id(), claims)
    }

    /// As [`World::sign`], under a key id of the test's choice.
    fn sign_as(&self, key_id: &str, claims: &Value) -> String {
        let key = EncodingKey::from_ed_pem(self.keys.pem.as_bytes()).unwrap();
        let header = Header { kid: Some(key_id.to_owned()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn accepted(&self, token: &str) -> Caller {
        self.verifier.verify(token).unwrap_or_else(|status| panic!("{token} was refused: {status}"))
    }

    fn refused(&self, token: &str) {
        let status = self.verifier.verify(token).expect_err(token);
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unauthenticated, "TOKEN_INVALID"),
            "{token}"
        );
    }
}

/// A part of a token.
fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[test]
fn a_good_token_names_its_caller() {
    let world = World::new();
    let ana = Caller { subject: "ana".to_owned(), roles: vec![Role::FrontDesk] };
    assert_eq!(world.accepted(&world.sign(&world.claims())), ana);
    // As other issuers write them: several audiences, no `iat`, roles that this suite does not know.
    let mut claims = world.claims_with("aud", json!(["other", AUDIENCE]));
    claims["roles"] = json!(["offline_access", "front_desk"]);
    claims.as_object_mut().unwrap().remove("iat");
    assert_eq!(world.accepted(&world.sign(&claims)), ana);
}

#[test]
fn a_token_outside_its_time_is_refused() {
    let world = World::new();
    let now = Clock::System.now();
    let at = |minutes| json!((now + TimeDelta::minutes(minutes)).timestamp());
    world.refused(&world.sign(&world.claims_with("exp", at(-1))));
    world.refused(&world.sign(&world.claims_with("exp", Value::Null)));
    world.refused(&world.sign(&world.claims_with("nbf", at(5))));
}

#[test]
fn a_token_of_another_issuer_or_for_another_audience_is_refused() {
    let world = World::new();
    for claim in ["iss", "aud"] {
        world.refused(&world.sign(&world.claims_with(claim, json!("somebody else"))));
        world.refused(&world.sign(&world.claims_with(claim, Value::Null)));
    }
}

#[test]
fn a_token_without_a_subject_is_refused() {
    let world = World::new();
    world.refused(&world.sign(&world.claims_with("sub", Value::Null)));
    world.refused(&world.sign(&world.claims_with("sub", json!(""))));
}

#[test]
fn a_token_of_another_key_is_refused_whatever_key_it_names() {
    let (world, stranger) = (World::new(), World::new());
    world.refused(&stranger.sign(&world.claims()));
    world.refused(&stranger.sign_as(&world.key_id(), &world.claims()));
    world.refused(&world.sign_as("unknown", &world.claims()));
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let world = World::new();
    let claims = part(&world.claims());
    for algorithm in ["none", "None", "NONE", ""] {
        let header = part(&json!({ "alg": algorithm, "typ": "JWT", "kid": world.key_id() }));
        world.refused(&format!("{header}.{claims}."));
        world.refused(&format!("{header}.{claims}"));
    }
    let header = part(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": world.key_id() }));
    world.refused(&format!("{header}.{claims}."));
}

#[test]
fn a_token_signed_with_the_public_key_as_a_secret_is_refused() {
    let world = World::new();
    let jwks = world.keys.issuer.jwks();
    let text = jwks["keys"][0]["x"].as_str().unwrap();
    for secret in [URL_SAFE_NO_PAD.decode(text).unwrap(), text.into(), jwks.to_string().into()] {
        let header = Header { kid: Some(world.key_id()), ..Header::new(Algorithm::HS256) };
        let key = EncodingKey::from_secret(&secret);
        world.refused(&jsonwebtoken::encode(&header, &world.claims(), &key).unwrap());
    }
}

#[test]
fn a_token_whose_claims_were_altered_is_refused() {
    let world = World::new();
    let token = world.sign(&world.claims());
    let mut parts: Vec<&str> = token.split('.').collect();
    let admin = part(&world.claims_with("roles", json!(["admin"])));
    parts[1] = &admin;
    world.refused(&parts.join("."));
}

#[test]
fn a_token_of_many_kilobytes_is_refused_though_it_is_signed() {
    let world = World::new();
    world.accepted(&world.sign(&world.claims_with("sub", json!("a".repeat(4 * 1024)))));
    world.refused(&world.sign(&world.claims_with("sub", json!("a".repeat(8 * 1024)))));
}

#[test]
fn what_is_no_token_at_all_is_refused() {
    let world = World::new();
    for text in ["", ".", "..", "a.b.c", "Bearer", "\u{0}", "🔑.🔑.🔑"] {
        world.refused(text);
    }
}

#[tokio::test]
async fn a_replaced_key_set_is_picked_up() {
    let world = World::new();
    let next = Issuer::from_pem(&Issuer::generate_pem().unwrap(), DEV_ISSUER, AUDIENCE).unwrap();
    let now = Clock::System.now();
    let new_token = next.sign("ben", &[Role::FrontDesk], now, TimeDelta::hours(1)).unwrap();
    let old_token = world.sign(&world.claims());
    world.refused(&new_token);
    world.accepted(&old_token);
    // With a date of its own: a file system may give two writes of one moment the same.
    let file = &world.keys.identity.jwks_file;
    let date = file.metadata().unwrap().modified().unwrap() + Duration::from_secs(1);
    std::fs::write(file, next.jwks().to_string()).unwrap();
    File::options().write(true).open(file).unwrap().set_modified(date).unwrap();
    until("the new key", || async { world.verifier.verify(&new_token).ok() }).await;
    world.refused(&old_token);
}

#[tokio::test]
async fn a_token_that_was_accepted_is_refused_once_it_has_expired() {
    let world = World::new();
    // Accepted for some seconds more than its own time.
    let now = Clock::System.now().timestamp();
    let token = world.sign(&world.claims_with("exp", json!(now - 28)));
    world.accepted(&token);
    until("the end of the token", || async { world.verifier.verify(&token).err() }).await;
}

/// What the role rule of one method says to a holder of `roles`.
fn ask(world: &World, roles: &[Role]) -> Result<Option<Caller>, Status> {
    let now = Clock::System.now();
    let token = world.keys.issuer.sign("ana", roles, now, TimeDelta::hours(1)).unwrap();
    authorize(&world.verifier, LIST_ACCESS_LOG, Some(&format!("Bearer {token}")))
}

#[test]
fn roles_that_a_method_does_not_allow_are_dropped_from_its_caller() {
    let world = World::new();
    let caller = ask(&world, &[Role::Patient, Role::FrontDesk, Role::Billing]).unwrap().unwrap();
    assert_eq!(caller.roles, [Role::Patient]);
    assert!(caller.only_patient().is_some(), "the desk's role must not widen what a patient sees");
    let status = ask(&world, &[Role::FrontDesk, Role::Billing]).unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "ROLE_REQUIRED"));
}

#[test]
fn a_method_without_a_rule_is_nobodys_to_call() {
    let world = World::new();
    let token = format!("Bearer {}", world.sign(&world.claims()));
    for path in ["/clinic.patients.v1.PatientService/DropEverything", "/", ""] {
        let status = authorize(&world.verifier, path, Some(&token)).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
}

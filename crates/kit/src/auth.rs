//! Who calls, and whether that role may call this method.
//!
//! Tokens are JWTs (RFC 7519) of an OIDC issuer, checked against its key set: signature under the key's own algorithm, `exp`,
//! `iss`, `aud` and `sub`. The role rule of each method stands in the proto (`clinic.auth.v1.rule`) and is read from the compiled
//! descriptors. Whether a patient reaches only itself is checked where the record is loaded, with [`Caller::may_see`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, RwLock};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use prost_reflect::{DescriptorPool, Value};
use proto::clinic::auth::v1::Role;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use crate::clock::Clock;
use crate::ids::PatientId;
use crate::status::{Error, Fault};

/// `iss` of the tokens that the built-in development issuer signs.
pub const DEV_ISSUER: &str = "https://issuer.clinic.invalid";
/// `aud` of every token for this suite.
pub const AUDIENCE: &str = "clinic";
/// Domain of errors about identity.
pub const DOMAIN: &str = "auth.clinic";

/// How far the clocks of issuer and service may differ.
const LEEWAY_SECS: u64 = 30;
/// Asymmetric algorithms only: a key set is public, so a symmetric one could be used to forge.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];
/// A token for another service of the suite lives this long.
const SERVICE_TOKEN_TTL: TimeDelta = TimeDelta::minutes(10);
/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Proven tokens that are remembered.
const MAX_PROVEN: usize = 10_000;

/// What a token of this suite's own issuer says.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// Who: a patient's id, a staff account, or a service's name.
    pub sub: String,
    /// End of validity, seconds since 1970.
    pub exp: i64,
    /// When it was signed, seconds since 1970.
    pub iat: i64,
    /// Lower-case role names, such as `front_desk`.
    pub roles: Vec<String>,
}

/// What is taken from a token of any issuer, once `exp`, `nbf`, `iss` and `aud` (one name or several) have been checked.
#[derive(Deserialize)]
struct Proven {
    sub: String,
    exp: u64,
    #[serde(default)]
    roles: Vec<String>,
}

/// The checked author of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub subject: String,
    /// Roles that the method being called allows.
    pub roles: Vec<Role>,
}

impl Caller {
    /// Whether the caller has this role.
    pub fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The patient that this caller is, when it is nothing more than a patient. Without any role it is nobody, who sees nothing.
    pub fn only_patient(&self) -> Option<PatientId> {
        let own = || self.subject.parse().unwrap_or_else(|_| PatientId::from(uuid::Uuid::nil()));
        self.roles.iter().all(|role| *role == Role::Patient).then(own)
    }

    /// Whether records of `patient` are this caller's to see: a patient sees its own, others what their role allows.
    pub fn may_see(&self, patient: PatientId) -> bool {
        self.only_patient().is_none_or(|own| own == patient)
    }

    /// The record's patient, or NOT_FOUND for `id` when it is another's.
    pub fn see<I: crate::ids::Id>(&self, patient: PatientId, id: I) -> Result<(), Error> {
        if self.may_see(patient) { Ok(()) } else { Err(Error::not_found(id)) }
    }

    /// For the log and the history: roles and subject, such as `front_desk:ana`.
    pub fn actor(&self) -> String {
        let role = self.roles.first().map_or("nobody".to_owned(), |r| role_name(*r));
        format!("{role}:{}", self.subject)
    }
}

/// The caller that the role layer put beside the request.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| unauthenticated("send a token: authorization: Bearer …"))
}

/// `front_desk` for `ROLE_FRONT_DESK`.
pub fn role_name(role: Role) -> String {
    role.as_str_name().trim_start_matches("ROLE_").to_ascii_lowercase()
}

/// The role with this lower-case name.
pub fn role_of_name(name: &str) -> Option<Role> {
    Role::from_str_name(&format!("ROLE_{}", name.to_ascii_uppercase())).filter(|r| *r != Role::Unspecified)
}

/// Names of all roles that a token may have.
pub fn role_names() -> Vec<String> {
    (1..).map_while(|n| Role::try_from(n).ok()).map(role_name).collect()
}

/// Who may call one method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Roles of which the caller needs one.
    pub allow: Vec<Role>,
    /// No token needed.
    pub anyone: bool,
    /// The answer is a stream, which lives until its reader leaves unless the reader names a deadline.
    pub streams: bool,
}

/// Rules by path, such as `/clinic.patients.v1.PatientService/GetPatient`, read from the compiled contract.
static RULES: LazyLock<HashMap<String, Rule>> = LazyLock::new(|| {
    let pool =
        DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("the build compiled these descriptors");
    let extension =
        pool.get_extension_by_name("clinic.auth.v1.rule").expect("auth/v1/options.proto defines it");
    let mut rules = HashMap::new();
    for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&extension) {
            continue;
        }
        let value = options.get_extension(&extension);
        let Some(message) = value.as_message() else { continue };
        let allow = message.get_field_by_name("allow").map_or(vec![], |v| {
            v.as_list()
                .unwrap_or_default()
                .iter()
                .filter_map(|r| Value::as_enum_number(r)?.try_into().ok())
                .collect()
        });
        let anyone = message.get_field_by_name("anyone").and_then(|v| v.as_bool()).unwrap_or(false);
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        rules.insert(path, Rule { allow, anyone, streams: method.is_server_streaming() });
    }
    rules
});

/// The rule of the method at `path`, `None` when the contract has none.
pub fn rule(path: &str) -> Option<&'static Rule> {
    RULES.get(path)
}

/// Decides on one call: who it is from, and whether that may call `path`. `Ok(None)` = anyone may, and no token came.
pub fn authorize(
    verifier: &Verifier,
    path: &str,
    authorization: Option<&str>,
) -> Result<Option<Caller>, Status> {
    const PUBLIC: [&str; 2] = ["/grpc.health.v1.", "/grpc.reflection."];
    if PUBLIC.iter().any(|prefix| path.starts_with(prefix)) {
        return Ok(None);
    }
    let Some(rule) = rule(path) else {
        // No such method, or one that the contract forgot to give a rule: nobody may call it.
        let message = format!("there is no method {path}; the contract's methods are listed by reflection");
        return Err(Fault::new(Code::Unimplemented, "NO_SUCH_METHOD", message).into_status(DOMAIN));
    };
    let Some(authorization) = authorization else {
        return if rule.anyone {
            Ok(None)
        } else {
            Err(unauthenticated("send a token: authorization: Bearer …"))
        };
    };
    let token = authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("bearer "));
    let mut caller = verifier.verify(token.unwrap_or_default())?;
    // A role that this method does not allow must not widen what another one may see.
    caller.roles.retain(|role| rule.allow.contains(role));
    if rule.anyone || !caller.roles.is_empty() {
        return Ok(Some(caller));
    }
    let needed: Vec<_> = rule.allow.iter().map(|r| role_name(*r)).collect();
    let message = format!("this call needs one of the roles: {}", needed.join(", "));
    Err(Fault::new(Code::PermissionDenied, "ROLE_REQUIRED", message).into_status(DOMAIN))
}

fn unauthenticated(message: &str) -> Status {
    Fault::new(Code::Unauthenticated, "TOKEN_INVALID", message).into_status(DOMAIN)
}

/// Checks tokens against a key set in a file, which is read again when it changes.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    file: PathBuf,
    issuer: String,
    audience: String,
    keys: RwLock<Keys>,
}

struct Keys {
    set: JwkSet,
    modified: Option<SystemTime>,
    looked: Instant,
    /// Tokens that these keys have proven, whom they prove, and until when (seconds since 1970): callers send the same one again
    /// and again, and a signature costs more than the search it asks for.
    proven: HashMap<String, (Caller, u64)>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("file", &self.0.file).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads the key set that `config` names.
    pub fn new(config: &crate::config::Identity) -> anyhow::Result<Self> {
        let file = config.jwks_file.clone();
        // Dated before it is read: a change in between is then read again, not missed.
        let modified = modified(&file);
        let keys = Keys { set: read_set(&file)?, modified, looked: Instant::now(), proven: HashMap::new() };
        let (issuer, audience) = (config.issuer.clone(), config.audience.clone());
        Ok(Self(Arc::new(Inner { file, issuer, audience, keys: RwLock::new(keys) })))
    }

    /// The caller that `token` proves, or UNAUTHENTICATED. The reason is logged, not told.
    pub fn verify(&self, token: &str) -> Result<Caller, Status> {
        self.try_verify(token).map_err(|error| {
            tracing::info!(error = format!("{error:#}"), "a token was refused");
            unauthenticated("the token is not valid: it may have expired, or come from another issuer")
        })
    }

    fn try_verify(&self, token: &str) -> anyhow::Result<Caller> {
        anyhow::ensure!(token.len() <= MAX_TOKEN, "the token has {} bytes", token.len());
        self.refresh();
        if let Some(caller) = self.remembered(token) {
            return Ok(caller);
        }
        let header = jsonwebtoken::decode_header(token)?;
        anyhow::ensure!(ALGORITHMS.contains(&header.alg), "algorithm {:?} is not accepted", header.alg);
        let kid = header.kid.context("the token names no key")?;
        let (key, modified) = self.key(&kid, header.alg)?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_SECS;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Proven>(token, &key, &validation)?.claims;
        anyhow::ensure!(!claims.sub.is_empty(), "the token has an empty subject");
        let roles = claims.roles.iter().filter_map(|name| role_of_name(name)).collect();
        let caller = Caller { subject: claims.sub, roles };
        self.remember(token, caller.clone(), claims.exp, modified);
        Ok(caller)
    }

    /// Whom a token proves that was checked before and has not expired.
    fn remembered(&self, token: &str) -> Option<Caller> {
        let keys = self.0.keys.read().expect("no panic while the lock is held");
        let (caller, until) = keys.proven.get(token)?;
        (jsonwebtoken::get_current_timestamp() < until.saturating_add(LEEWAY_SECS)).then(|| caller.clone())
    }

    fn remember(&self, token: &str, caller: Caller, until: u64, modified: Option<SystemTime>) {
        let mut keys = self.0.keys.write().expect("no panic while the lock is held");
        // Keys that came meanwhile have not proven it.
        if keys.modified == modified {
            if keys.proven.len() >= MAX_PROVEN {
                keys.proven.clear();
            }
            keys.proven.insert(token.to_owned(), (caller, until));
        }
    }

    /// The key by this name, and which state of the set it is from.
    fn key(&self, kid: &str, algorithm: Algorithm) -> anyhow::Result<(DecodingKey, Option<SystemTime>)> {
        let keys = self.0.keys.read().expect("no panic while the lock is held");
        let jwk = keys.set.find(kid).with_context(|| format!("no key {kid:?} in the set"))?;
        // The key says which algorithm it is for; the token's header does not get to choose.
        let own = jwk.common.key_algorithm.context("the key names no algorithm")?;
        anyhow::ensure!(
            Algorithm::try_from(own).ok() == Some(algorithm),
            "key {kid:?} is not for {algorithm:?}"
        );
        Ok((DecodingKey::from_jwk(jwk)?, keys.modified))
    }

    /// Takes over a changed file, looking at most once a second; a bad file keeps the old keys.
    fn refresh(&self) {
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        {
            let keys = self.0.keys.read().expect("no panic while the lock is held");
            if keys.looked.elapsed() < LOOK_EVERY {
                return;
            }
        }
        let mut keys = self.0.keys.write().expect("no panic while the lock is held");
        keys.looked = Instant::now();
        let now = modified(&self.0.file);
        if now != keys.modified {
            match read_set(&self.0.file) {
                Ok(set) => {
                    (keys.set, keys.modified) = (set, now);
                    keys.proven.clear();
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the key set could not be read again")
                }
            }
        }
    }
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|m| m.modified()).ok()
}

fn read_set(file: &Path) -> anyhow::Result<JwkSet> {
    let text =
        std::fs::read(file).with_context(|| format!("the key set {} cannot be read", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON Web Key Set", file.display()))
}

/// Signs tokens with an Ed25519 key: as the development issuer, and as each service towards the others.
#[derive(Clone)]
pub struct Issuer {
    key: EncodingKey,
    kid: String,
    public: Vec<u8>,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Issuer {
    /// A fresh private key as PKCS#8 PEM.
    pub fn generate_pem() -> anyhow::Result<String> {
        let random = ring::rand::SystemRandom::new();
        let der = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let body = STANDARD.encode(der.as_ref());
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
    }

    /// Signs with the key in `pem`.
    pub fn from_pem(pem: &str, issuer: &str, audience: &str) -> anyhow::Result<Self> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(body).context("the key is no PEM")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|e| anyhow::anyhow!("the key is no Ed25519 key in PKCS#8: {e}"))?;
        let public = pair.public_key().as_ref().to_vec();
        let kid = hex::encode(&ring::digest::digest(&ring::digest::SHA256, &public).as_ref()[..8]);
        Ok(Self {
            key: EncodingKey::from_ed_der(&der),
            kid,
            public,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        })
    }

    /// Signs with the service key that `config` names.
    pub fn from_config(config: &crate::config::Identity) -> anyhow::Result<Self> {
        let file = &config.service_key_file;
        let pem = std::fs::read_to_string(file)
            .with_context(|| format!("the key {} cannot be read", file.display()))?;
        Self::from_pem(&pem, &config.issuer, &config.audience).with_context(|| file.display().to_string())
    }

    /// The key set that verifies this issuer's tokens.
    pub fn jwks(&self) -> serde_json::Value {
        serde_json::json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "kid": self.kid, "x": URL_SAFE_NO_PAD.encode(&self.public),
        }]})
    }

    /// A token for `subject` with `roles`, valid for `ttl` from `now` (the machine's time, not a simulated one).
    pub fn sign(
        &self,
        subject: &str,
        roles: &[Role],
        now: DateTime<Utc>,
        ttl: TimeDelta,
    ) -> anyhow::Result<String> {
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: subject.to_owned(),
            exp: (now + ttl).timestamp(),
            iat: now.timestamp(),
            roles: roles.iter().map(|r| role_name(*r)).collect(),
        };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}

/// The token that one service shows to the others, signed anew before it runs out.
#[derive(Clone, Debug)]
pub struct ServiceToken {
    issuer: Issuer,
    subject: &'static str,
    current: Arc<RwLock<Option<Signed>>>,
}

#[derive(Clone, Debug)]
struct Signed {
    token: String,
    renew_at: DateTime<Utc>,
}

impl ServiceToken {
    /// Tokens of the service `subject`.
    pub fn new(issuer: Issuer, subject: &'static str) -> Self {
        Self { issuer, subject, current: Arc::default() }
    }

    /// A token that is valid for at least half its life.
    pub fn get(&self) -> anyhow::Result<String> {
        let now = Clock::System.now();
        let fresh =
            |current: &Option<Signed>| current.as_ref().filter(|s| now < s.renew_at).map(|s| s.token.clone());
        if let Some(token) = fresh(&self.current.read().expect("no panic while the lock is held")) {
            return Ok(token);
        }
        let mut current = self.current.write().expect("no panic while the lock is held");
        if let Some(token) = fresh(&current) {
            return Ok(token);
        }
        let token = self.issuer.sign(self.subject, &[Role::Service], now, SERVICE_TOKEN_TTL)?;
        *current = Some(Signed { token: token.clone(), renew_at: now + SERVICE_TOKEN_TTL / 2 });
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_role_widens_what_a_patient_sees() {
        let (own, other) = (PatientId::new(), PatientId::new());
        let caller = |roles: &[Role]| Caller { subject: own.to_string(), roles: roles.to_vec() };
        for narrow in [&[Role::Patient][..], &[Role::Patient, Role::Patient], &[]] {
            assert!(caller(narrow).may_see(own) && !caller(narrow).may_see(other), "{narrow:?}");
        }
        assert!(caller(&[Role::Patient, Role::FrontDesk]).may_see(other));
    }
}

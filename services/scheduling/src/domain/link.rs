//! Links under which calendars are published. A link's address holds a token: its id, signed, so that nobody can make one up and
//! what is stored shows nobody the address.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kit::ids::{CalendarLinkId, ClinicId, ProviderId};
use sha2::Sha256;
use uuid::Uuid;

/// Octets of an id in a token.
const ID: usize = 16;
/// Octets of the signature: half of SHA-256's, which RFC 2104, section 5, allows and nobody guesses.
const SIGNATURE: usize = 16;

/// What a link shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A provider's calendar.
    Provider(ProviderId),
    /// A clinic's closures.
    Clinic(ClinicId),
}

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: CalendarLinkId,
    /// What it shows.
    pub subject: Subject,
    /// When it was made.
    pub create_time: DateTime<Utc>,
    /// When it was revoked; `None` = it works.
    pub revoke_time: Option<DateTime<Utc>>,
}

/// Signs tokens; all replicas have the same. Not printed.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Key {
    /// The token of a link, in characters that any URL may have.
    pub fn token(&self, id: CalendarLinkId) -> String {
        let id = id.uuid().into_bytes();
        let signature = self.signature(&id).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&id, &signature[..SIGNATURE]].concat())
    }

    /// The link that a token names; `None` = the token is forged. Compared in constant time.
    pub fn open(&self, token: &str) -> Option<CalendarLinkId> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == ID + SIGNATURE)?;
        let (id, signature) = bytes.split_first_chunk::<ID>()?;
        self.signature(id).verify_truncated_left(signature).ok()?;
        Some(Uuid::from_bytes(*id).into())
    }

    fn signature(&self, id: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(id);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_under_its_key_alone_and_with_no_bit_changed() {
        let (key, other) = (Key(vec![1; 32]), Key(vec![2; 32]));
        let id = CalendarLinkId::new();
        let token = key.token(id);
        assert_eq!(key.open(&token), Some(id));
        assert_eq!(other.open(&token), None);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&URL_SAFE_NO_PAD.encode(forged)), None, "bit {bit}");
        }
        for cut in ["", &token[..token.len() - 1], &token[..22], &format!("{token}AA")] {
            assert_eq!(key.open(cut), None, "{cut}");
        }
    }
}

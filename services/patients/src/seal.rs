//! Patient data at rest: sealed with AES-256-GCM, and found again by keyed hashes.
//!
//! A sealed value is the id of its key (4 bytes, big-endian), a random nonce (12 bytes), the ciphertext and its tag (16 bytes). The
//! place it belongs to (table, column, row) is authenticated with it: a value moved to another place does not open. Values that are
//! searched for are hashed with HMAC-SHA-256 under a key of its own, which never changes.
//!
//! The keys are lines of a file: `hash` and a key, then numbers and keys; the highest number seals. The file is made on first start
//! and read again while the service runs, so that a key can be added without stopping anything. Random nonces are safe for 2^32
//! values a key (NIST SP 800-38D, 8.3).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use kit::status::Error as KitError;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hmac, rand};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a key's id in front of a sealed value.
const ID_BYTES: usize = 4;
/// The line of the key that hashes.
const HASH: &str = "hash";
/// The first lines of a new file.
const PREAMBLE: &str = "# The keys that patient data is sealed with. Without them nobody can read it: keep a copy of this file,\n\
                        # apart from copies of the database. Keys are added by `clinic keys rotate`; none is ever removed.\n";

/// Where a sealed value belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Its table.
    pub(crate) table: &'static str,
    /// Its column.
    pub(crate) column: &'static str,
    /// Its row's primary key.
    pub(crate) row: &'a [u8],
}

impl Place<'_> {
    fn aad(&self) -> Aad<Vec<u8>> {
        // Names of tables and columns have no zero byte, so no two places read alike.
        Aad::from([self.table.as_bytes(), &[0], self.column.as_bytes(), &[0], self.row].concat())
    }
}

/// Why a value cannot be sealed or opened. Nothing is changed by either.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file lacks the key.
    #[error("patient data is sealed with key {id}, which {} does not hold: put the file with that key back", file.display())]
    KeyMissing {
        /// The key's id.
        id: u32,
        /// The file.
        file: PathBuf,
    },
    /// Another key has that id, or the value was changed or moved.
    #[error(
        "{}.{} does not open with key {id} of {}: the file has another key under this number, or the value was changed",
        .table, .column, file.display()
    )]
    Unopened {
        /// The value's table.
        table: &'static str,
        /// Its column.
        column: &'static str,
        /// The key's id.
        id: u32,
        /// The file.
        file: PathBuf,
    },
    /// The machine gives no random bytes.
    #[error("this machine has no randomness")]
    NoRandomness,
}

impl From<SealError> for KitError {
    fn from(error: SealError) -> Self {
        Self::internal(error)
    }
}

/// The keys of a file; clones share them.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    file: PathBuf,
    ring: RwLock<Arc<Ring>>,
}

struct Ring {
    hash: hmac::Key,
    sealing: BTreeMap<u32, LessSafeKey>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("file", &self.0.file).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the keys in `file`.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let ring = RwLock::new(Arc::new(Ring::read(file)?));
        Ok(Self(Arc::new(Inner { file: file.to_owned(), ring })))
    }

    /// Makes `file` with fresh keys; fails when it exists.
    pub fn create(file: &Path) -> anyhow::Result<Self> {
        let text = format!("{PREAMBLE}{HASH} {}\n1 {}\n", fresh_key()?, fresh_key()?);
        write_new(file, &text)?;
        Self::read(file)
    }

    /// Adds a key to `file`, which seals from now on, and answers its number. What is sealed with the others still opens.
    pub fn add(file: &Path) -> anyhow::Result<u32> {
        let newest = Ring::read(file)?.newest()?.0;
        let id = newest.checked_add(1).context("there are no more key numbers")?;
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let fresh = file.with_extension("new");
        write_new(&fresh, &format!("{}\n{id} {}\n", text.trim_end(), fresh_key()?))?;
        // Who could read the keys, and nobody else, reads the new file.
        let old = fs::metadata(file)?;
        fs::set_permissions(&fresh, old.permissions())?;
        chown(&fresh, Some(old.uid()), Some(old.gid()))?;
        fs::rename(&fresh, file).with_context(|| format!("{} cannot be replaced", file.display()))?;
        Ok(id)
    }

    /// Reads the file again. When that fails, the keys stay as they are.
    pub fn refresh(&self) -> anyhow::Result<()> {
        let ring = Arc::new(Ring::read(&self.0.file)?);
        *self.0.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }

    /// The numbers of all keys, and the file they are in.
    pub(crate) fn ids(&self) -> (Vec<u32>, &Path) {
        (self.ring().sealing.keys().copied().collect(), &self.0.file)
    }

    /// What values sealed with the newest key begin with; those of older keys sort before it.
    pub(crate) fn newest_prefix(&self) -> Vec<u8> {
        self.ring().sealing.last_key_value().map_or_else(Vec::new, |(id, _)| id.to_be_bytes().to_vec())
    }

    /// Seals `plain` with the newest key for one place.
    pub(crate) fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let ring = self.ring();
        let (id, key) = ring.sealing.last_key_value().ok_or(SealError::NoRandomness)?;
        self.seal_by(*id, key, place, plain)
    }

    /// As [`Keys::seal`], with the key of one id.
    pub(crate) fn seal_with(&self, id: u32, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let ring = self.ring();
        let key = ring.sealing.get(&id).ok_or_else(|| self.missing(id))?;
        self.seal_by(id, key, place, plain)
    }

    fn seal_by(
        &self,
        id: u32,
        key: &LessSafeKey,
        place: Place<'_>,
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] =
            rand::generate(&rand::SystemRandom::new()).map_err(|_| SealError::NoRandomness)?.expose();
        let mut sealed = [&id.to_be_bytes()[..], &nonce].concat();
        let mut text = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place.aad(), &mut text)
            .map_err(|_| SealError::NoRandomness)?;
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what was sealed for this place, with whichever key it was.
    pub(crate) fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let unopened = |id| SealError::Unopened {
            table: place.table,
            column: place.column,
            id,
            file: self.0.file.clone(),
        };
        let (id, rest) = sealed.split_first_chunk::<ID_BYTES>().ok_or_else(|| unopened(0))?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(|| unopened(0))?;
        let id = u32::from_be_bytes(*id);
        let mut ring = self.ring();
        if !ring.sealing.contains_key(&id) {
            // Another replica may seal with a key that was added since this one read the file.
            if let Err(error) = self.refresh() {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the keys of patient data cannot be read again"
                );
            }
            ring = self.ring();
        }
        let key = ring.sealing.get(&id).ok_or_else(|| self.missing(id))?;
        let mut text = text.to_vec();
        let plain = key.open_in_place(Nonce::assume_unique_for_key(*nonce), place.aad(), &mut text);
        plain.map(|plain| plain.to_vec()).map_err(|_| unopened(id))
    }

    /// The keyed hash by which `value` is found again among others of its `kind`.
    pub(crate) fn hash(&self, kind: &str, value: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.ring().hash);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(value);
        context.sign().as_ref().to_vec()
    }

    fn ring(&self) -> Arc<Ring> {
        self.0.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn missing(&self, id: u32) -> SealError {
        SealError::KeyMissing { id, file: self.0.file.clone() }
    }
}

impl Ring {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("the keys of patient data, {}, cannot be read", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no file of keys", file.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut hash, mut sealing) = (None, BTreeMap::new());
        let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        for (n, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            // What a line holds is never repeated in an error.
            let (name, key) = line.split_once(' ').with_context(|| format!("line {n} is no name and key"))?;
            let key = hex::decode(key).ok().filter(|key| key.len() == KEY_BYTES);
            let key = key.with_context(|| format!("line {n} has no key of 64 hexadecimal digits"))?;
            let twice = if name == HASH {
                hash.replace(hmac::Key::new(hmac::HMAC_SHA256, &key)).is_some()
            } else {
                let id: u32 = name.parse().ok().with_context(|| format!("line {n} has no number"))?;
                let key = UnboundKey::new(&AES_256_GCM, &key).ok().context("a key of 32 bytes")?;
                sealing.insert(id, LessSafeKey::new(key)).is_some()
            };
            anyhow::ensure!(!twice, "line {n} names a key a second time");
        }
        let ring = Self { hash: hash.context("it has no line `hash`")?, sealing };
        ring.newest()?;
        Ok(ring)
    }

    fn newest(&self) -> anyhow::Result<(u32, &LessSafeKey)> {
        self.sealing.last_key_value().map(|(id, key)| (*id, key)).context("it has no numbered key")
    }
}

fn fresh_key() -> anyhow::Result<String> {
    let bytes: [u8; KEY_BYTES] =
        rand::generate(&rand::SystemRandom::new()).map_err(|_| SealError::NoRandomness)?.expose();
    Ok(hex::encode(bytes))
}

/// Writes a file that only its owner can read and that did not exist, down to the disk: what it seals is lost without it.
fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: Place<'_> = Place { table: "contact", column: "sealed", row: b"1" };

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("patients-seal-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_sealed_value_opens_in_its_own_place_alone() {
        let folder = folder("place");
        let keys = Keys::create(&folder.join("keys")).expect("made");
        let sealed = keys.seal(PHONE, b"+12025550123").expect("sealed");
        assert!(!sealed.windows(4).any(|part| part == b"2025"));
        assert_eq!(keys.open(PHONE, &sealed).expect("opened"), b"+12025550123");
        for elsewhere in [
            Place { row: b"2", ..PHONE },
            Place { column: "email", ..PHONE },
            Place { table: "intake", ..PHONE },
        ] {
            assert!(matches!(keys.open(elsewhere, &sealed), Err(SealError::Unopened { id: 1, .. })));
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.open(PHONE, &changed).is_err(), "byte {at}");
            assert!(keys.open(PHONE, &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_ne!(keys.seal(PHONE, b"x").expect("sealed"), keys.seal(PHONE, b"x").expect("sealed"));
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_key_added_elsewhere_is_found_when_it_is_needed() {
        let folder = folder("added");
        let file = folder.join("keys");
        let here = Keys::create(&file).expect("made");
        let old = here.seal(PHONE, b"old").expect("sealed");
        assert_eq!(Keys::add(&file).expect("added"), 2);
        let there = Keys::read(&file).expect("read");
        let new = there.seal(PHONE, b"new").expect("sealed");
        assert!(old < there.newest_prefix() && new > there.newest_prefix());
        assert_eq!(here.open(PHONE, &new).expect("opened"), b"new");
        assert_eq!(there.open(PHONE, &old).expect("opened"), b"old");
        assert_eq!(here.hash("phone", b"1"), there.hash("phone", b"1"));
        assert_ne!(here.hash("phone", b"1"), here.hash("mrn", b"1"));
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_wrong_key_or_file_is_told_apart_and_never_shown() {
        let folder = folder("wrong");
        let (file, other) = (folder.join("keys"), folder.join("other"));
        let sealed = Keys::create(&file).expect("made").seal(PHONE, b"x").expect("sealed");
        let wrong = Keys::create(&other).expect("made").open(PHONE, &sealed).expect_err("another key");
        assert!(wrong.to_string().contains("another key under this number"));
        assert!(Keys::create(&file).is_err(), "a file that exists is kept");
        for text in ["", "hash 12", "1 zz", "hash", "no keys at all", &format!("1 {}", "ab".repeat(32))] {
            fs::write(&other, text).expect("written");
            let error = format!("{:#}", Keys::read(&other).expect_err(text));
            assert!(error.contains("is no file of keys") && !error.contains("abab"), "{error}");
        }
        fs::remove_dir_all(folder).expect("removed");
    }
}

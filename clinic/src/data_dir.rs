//! Where a local suite keeps its data: one folder with both servers' files, the development issuer's keys and the sandbox's
//! records. Deleting it forgets everything.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kit::auth::{AUDIENCE, DEV_ISSUER, Issuer};
use kit::config::Identity;

/// The folder used when none is named: `.clinic` in the workspace this was built from, else in the present folder.
pub fn default() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    workspace.filter(|root| root.join("Cargo.toml").exists()).unwrap_or(Path::new(".")).join(".clinic")
}

/// The folder to use for `chosen`. When PostgreSQL's user could not enter it (root's own home), another place that it can.
pub fn resolve(chosen: Option<&Path>) -> anyhow::Result<PathBuf> {
    let preferred = chosen.map_or_else(default, Path::to_path_buf);
    let folder = servers::reachable_data_dir(&preferred)?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("the data folder {} cannot be made", folder.display()))?;
    Ok(folder)
}

/// The keys in `folder`, made on first use: a private key that signs tokens, and the key set that verifies them.
pub fn identity(folder: &Path) -> anyhow::Result<(Identity, Issuer)> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let (jwks_file, service_key_file) = (folder.join("jwks.json"), folder.join("service.pem"));
    if !service_key_file.exists() {
        write_private(&service_key_file, &Issuer::generate_pem()?)?;
    }
    let identity = Identity {
        jwks_file,
        service_key_file,
        issuer: DEV_ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
    };
    let issuer = Issuer::from_config(&identity)?;
    if !identity.jwks_file.exists() {
        let keys = issuer.jwks().to_string();
        fs::write(&identity.jwks_file, keys).with_context(|| identity.jwks_file.display().to_string())?;
    }
    Ok((identity, issuer))
}

/// The folder below a data folder that has the keys.
pub fn identity_folder(data: &Path) -> PathBuf {
    data.join("identity")
}

/// A secret kept in `file`, made on first use.
pub fn secret(file: &Path) -> anyhow::Result<String> {
    if !file.exists() {
        let bytes: [u8; 32] = ring::rand::generate(&ring::rand::SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("this machine has no randomness"))?
            .expose();
        write_private(file, &hex::encode(bytes))?;
    }
    Ok(fs::read_to_string(file).with_context(|| file.display().to_string())?.trim().to_owned())
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = file.with_extension("new");
    let write = || {
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?
            .write_all(text.as_bytes())?;
        fs::rename(&fresh, file)
    };
    write().with_context(|| format!("{} cannot be written", file.display()))
}

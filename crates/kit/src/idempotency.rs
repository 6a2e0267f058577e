//! Request ids (AIP-155): the same id and body returns the first result; the same id with another body is refused.
//!
//! The row is written in the transaction of the change itself. A second caller with the same id waits on it inside PostgreSQL
//! until the first has committed or rolled back.

use prost::Message;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use crate::auth::Caller;
use crate::db::{Db, Tx};
use crate::ids::RequestId;
use crate::status::Error;

/// What became of a request.
#[derive(Debug)]
pub enum Attempt<R> {
    /// It was answered before, with this.
    Replayed(R),
    /// It is new: do the work in this transaction, then [`Fresh::finish`].
    Fresh(Fresh),
}

/// One attempt at a change, as its caller named it.
#[derive(Clone, Debug)]
pub struct Key {
    caller: String,
    request_id: RequestId,
    fingerprint: Vec<u8>,
}

impl Key {
    /// The key of `request` to `method` (the RPC's name); `None` when the caller gave it no id.
    pub fn new<Q: Message>(
        caller: &Caller,
        method: &str,
        request_id: Option<RequestId>,
        request: &Q,
    ) -> Option<Self> {
        let fingerprint = fingerprint(method, request);
        Some(Self { caller: caller.subject.clone(), request_id: request_id?, fingerprint })
    }

    /// Who calls. With the next two it is for a service that writes its row of `request` in a statement of its own.
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// The caller's name for the call.
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// What was called, and with what.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }
}

/// An open transaction that remembers its request id.
#[derive(Debug)]
pub struct Fresh {
    /// The transaction to work in.
    pub tx: Tx,
    key: Option<Key>,
}

/// Opens a transaction for `request`, or finds the answer that was given before. `method` is the RPC's name.
pub async fn begin<Q: Message, R: Message + Default>(
    db: &Db,
    caller: &Caller,
    method: &str,
    request_id: Option<RequestId>,
    request: &Q,
) -> Result<Attempt<R>, Error> {
    begin_keyed(db, Key::new(caller, method, request_id, request), None).await
}

/// As [`begin`], with the key made before. An `answer` that is known before the work is written with the key:
/// [`Fresh::commit`] follows then.
pub async fn begin_keyed<R: Message + Default>(
    db: &Db,
    key: Option<Key>,
    answer: Option<&R>,
) -> Result<Attempt<R>, Error> {
    let mut tx = db.begin().await?;
    let Some(key) = key else {
        return Ok(Attempt::Fresh(Fresh { tx, key: None }));
    };
    let inserted = sqlx::query(
        "insert into request (caller, request_id, fingerprint, response) values ($1, $2, $3, $4)
         on conflict do nothing",
    )
    .bind(&key.caller)
    .bind(key.request_id)
    .bind(&key.fingerprint)
    .bind(answer.map(Message::encode_to_vec))
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if inserted == 1 {
        return Ok(Attempt::Fresh(Fresh { tx, key: Some(key) }));
    }
    match find(&mut tx, &key).await? {
        Some(response) => Ok(Attempt::Replayed(response)),
        None => Err(Error::internal(anyhow::anyhow!("request {} has no response", key.request_id))),
    }
}

/// The answer that was given before, if any, without opening an attempt: for callers who ask others before they begin.
pub async fn find<R: Message + Default>(conn: &mut PgConnection, key: &Key) -> Result<Option<R>, Error> {
    let row: Option<(Vec<u8>, Option<Vec<u8>>)> =
        sqlx::query_as("select fingerprint, response from request where caller = $1 and request_id = $2")
            .bind(&key.caller)
            .bind(key.request_id)
            .fetch_optional(conn)
            .await?;
    let Some((first, response)) = row else { return Ok(None) };
    if first != key.fingerprint {
        return Err(Error::RequestIdReused { request_id: key.request_id.uuid() });
    }
    response.map(|bytes| R::decode(bytes.as_slice()).map_err(Error::internal)).transpose()
}

impl Fresh {
    /// Stores the answer beside the change and commits both.
    pub async fn finish<R: Message>(mut self, response: &R) -> Result<(), Error> {
        if let Some(key) = self.key {
            sqlx::query("update request set response = $3 where caller = $1 and request_id = $2")
                .bind(key.caller)
                .bind(key.request_id)
                .bind(response.encode_to_vec())
                .execute(&mut *self.tx)
                .await?;
        }
        self.tx.commit().await?;
        Ok(())
    }

    /// Commits a change whose answer was written before it.
    pub async fn commit(self) -> Result<(), Error> {
        Ok(self.tx.commit().await?)
    }
}

/// Identifies a request's method and body.
pub fn fingerprint<Q: Message>(method: &str, request: &Q) -> Vec<u8> {
    Sha256::new()
        .chain_update(method)
        .chain_update([0])
        .chain_update(request.encode_to_vec())
        .finalize()
        .to_vec()
}

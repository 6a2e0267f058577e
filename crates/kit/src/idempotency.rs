//! Request ids (AIP-155): the same id and body returns the first result; the same id with another body is refused.
//!
//! The row is written in the transaction of the change itself. A second caller with the same id waits on it inside PostgreSQL
//! until the first has committed or rolled back.

use prost::Message;
use sha2::{Digest as _, Sha256};

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

/// An open transaction that remembers its request id.
#[derive(Debug)]
pub struct Fresh {
    /// The transaction to work in.
    pub tx: Tx,
    key: Option<(String, RequestId)>,
}

/// Opens a transaction for `request`, or finds the answer that was given before. `method` is the RPC's name.
pub async fn begin<Q: Message, R: Message + Default>(
    db: &Db,
    caller: &Caller,
    method: &str,
    request_id: Option<RequestId>,
    request: &Q,
) -> Result<Attempt<R>, Error> {
    let mut tx = db.begin().await?;
    let Some(request_id) = request_id else {
        return Ok(Attempt::Fresh(Fresh { tx, key: None }));
    };
    let fingerprint = fingerprint(method, request);
    let inserted = sqlx::query(
        "insert into request (caller, request_id, fingerprint) values ($1, $2, $3) on conflict do nothing",
    )
    .bind(&caller.subject)
    .bind(request_id)
    .bind(&fingerprint)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if inserted == 1 {
        let key = Some((caller.subject.clone(), request_id));
        return Ok(Attempt::Fresh(Fresh { tx, key }));
    }
    let (first, response): (Vec<u8>, Option<Vec<u8>>) =
        sqlx::query_as("select fingerprint, response from request where caller = $1 and request_id = $2")
            .bind(&caller.subject)
            .bind(request_id)
            .fetch_one(&mut *tx)
            .await?;
    if first != fingerprint {
        return Err(Error::RequestIdReused { request_id: request_id.uuid() });
    }
    let response =
        response.ok_or_else(|| Error::internal(anyhow::anyhow!("request {request_id} has no response")))?;
    R::decode(response.as_slice()).map(Attempt::Replayed).map_err(Error::internal)
}

impl Fresh {
    /// Stores the answer beside the change and commits both.
    pub async fn finish<R: Message>(mut self, response: &R) -> Result<(), Error> {
        if let Some((caller, request_id)) = self.key {
            sqlx::query("update request set response = $3 where caller = $1 and request_id = $2")
                .bind(caller)
                .bind(request_id)
                .bind(response.encode_to_vec())
                .execute(&mut *self.tx)
                .await?;
        }
        self.tx.commit().await?;
        Ok(())
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

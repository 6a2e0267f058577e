//! Requests that are repeated (AIP-155), as `kit::idempotency` has them, with answers sealed: they hold patient data. So does what
//! tells one request from another, which is why it is hashed with a key.

use kit::auth::Caller;
use kit::db::Tx;
use kit::idempotency::{self, Key};
use kit::ids::RequestId;
use kit::status::Error as KitError;
use prost::Message;

use crate::app::App;
use crate::error::Error;
use crate::seal::{Keys, Place};

/// What became of a request.
pub(crate) enum Attempt<R> {
    /// It was answered before, with this.
    Replayed(R),
    /// It is new: do the work in its transaction, then [`Fresh::finish`].
    Fresh(Fresh),
}

/// An open transaction that remembers its request id.
pub(crate) struct Fresh {
    inner: idempotency::Fresh,
    keys: Keys,
    row: Vec<u8>,
}

/// Opens a transaction for `request` to `method`, or finds the answer that was given before.
pub(crate) async fn begin<Q: Message, R: Message + Default>(
    app: &App,
    caller: &Caller,
    method: &str,
    request_id: Option<RequestId>,
    request: &Q,
) -> Result<Attempt<R>, Error> {
    let body = app.keys.hash("request", &request.encode_to_vec());
    let key = Key::new(caller, method, request_id, &body);
    let id = request_id.map(|id| id.uuid()).unwrap_or_default();
    let row = [id.as_bytes(), caller.subject.as_bytes()].concat();
    match idempotency::begin_keyed::<Vec<u8>>(&app.db, key, None).await? {
        idempotency::Attempt::Replayed(sealed) => {
            let answer = app.keys.open(answer_of(&row), &sealed).map_err(KitError::from)?;
            Ok(Attempt::Replayed(R::decode(answer.as_slice()).map_err(KitError::internal)?))
        }
        idempotency::Attempt::Fresh(inner) => {
            Ok(Attempt::Fresh(Fresh { inner, keys: app.keys.clone(), row }))
        }
    }
}

impl Fresh {
    /// The transaction to work in.
    pub(crate) fn tx(&mut self) -> &mut Tx {
        &mut self.inner.tx
    }

    /// Stores the answer beside the change, sealed, and commits both.
    pub(crate) async fn finish<R: Message>(self, response: &R) -> Result<(), Error> {
        let sealed = self.keys.seal(answer_of(&self.row), &response.encode_to_vec());
        Ok(self.inner.finish(&sealed.map_err(KitError::from)?).await?)
    }
}

fn answer_of(row: &[u8]) -> Place<'_> {
    Place { table: "request", column: "response", row }
}

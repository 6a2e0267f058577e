//! Many small writes as few large ones: whoever writes waits for its own answer, and what others ask for meanwhile goes with the next
//! write. Nothing waits for company.

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

/// Writes made together at most.
const TOGETHER: usize = 256;

/// A write that can be made for many at once.
#[async_trait]
pub trait Write: Send + Sync + 'static {
    /// What one writer hands in.
    type One: Send + Sync + 'static;
    /// What it gets back.
    type Answer: Send + 'static;

    /// Writes all of `batch`, or nothing. Answers in its order.
    async fn write(&self, batch: &[Self::One]) -> sqlx::Result<Vec<Self::Answer>>;
}

struct Waiting<W: Write> {
    one: W::One,
    answer: oneshot::Sender<sqlx::Result<W::Answer>>,
}

/// Where writers meet; clones share it.
pub struct Group<W: Write>(mpsc::Sender<Waiting<W>>);

impl<W: Write> Clone for Group<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Write> Group<W> {
    /// Begins to write, in a task that ends with the last clone.
    pub fn new(write: W) -> Self {
        let (sender, receiver) = mpsc::channel(TOGETHER);
        tokio::spawn(run(write, receiver));
        Self(sender)
    }

    /// Writes `one` and waits for its answer.
    pub async fn write(&self, one: W::One) -> anyhow::Result<W::Answer> {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.send(Waiting { one, answer }).await;
        sent.ok().context("nobody writes any more")?;
        Ok(answered.await.context("the writer broke off")??)
    }
}

async fn run<W: Write>(write: W, mut receiver: mpsc::Receiver<Waiting<W>>) {
    let mut waiting = vec![];
    while receiver.recv_many(&mut waiting, TOGETHER).await > 0 {
        let (batch, answers): (Vec<_>, Vec<_>) = waiting.drain(..).map(|w| (w.one, w.answer)).unzip();
        match write.write(&batch).await {
            // A writer that has gone needs no answer.
            Ok(written) => {
                answers.into_iter().zip(written).for_each(|(to, answer)| drop(to.send(Ok(answer))))
            }
            Err(error) if batch.len() == 1 => {
                if let Some(to) = answers.into_iter().next() {
                    let _ = to.send(Err(error));
                }
            }
            // One of them is to blame: the others need not fail with it.
            Err(error) => {
                tracing::debug!(%error, writes = batch.len(), "writes are made one by one");
                for (one, to) in batch.iter().zip(answers) {
                    let written = write.write(std::slice::from_ref(one)).await;
                    let _ = to.send(written.and_then(|mut all| all.pop().ok_or(sqlx::Error::RowNotFound)));
                }
            }
        }
    }
}

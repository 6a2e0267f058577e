//! Streams that stay open: who may have one, and how one ends.
//!
//! A task tells, a stream is what its reader sees. One message at most waits for the reader; who does not take it for [`PATIENCE`]
//! is told so and let go, so that a reader that hangs costs nobody anything.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Code, Status};

use crate::status::Fault;

/// How long a message waits for its reader.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Streams that may be open in one process, by kind.
const MAX_STREAMS: usize = 1_000;
/// Streams of one caller among them.
const MAX_STREAMS_OF_CALLER: usize = 50;
/// When a stream that a stopping server ended may be opened again.
const COME_BACK: Duration = Duration::from_secs(1);

/// Who has a stream of one kind open, by caller.
#[derive(Clone, Debug, Default)]
pub struct Seats(Arc<Mutex<HashMap<String, usize>>>);

/// A place among those who watch, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    caller: String,
}

impl Seats {
    /// Takes a place for `caller`; RESOURCE_EXHAUSTED TOO_MANY_STREAMS under `domain` when there is none.
    pub fn take(&self, caller: &str, domain: &'static str) -> Result<Seat, Status> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(caller).copied().unwrap_or_default();
        if all >= MAX_STREAMS || own >= MAX_STREAMS_OF_CALLER {
            let message = "too many streams are open: end one first";
            let fault = Fault::new(Code::ResourceExhausted, "TOO_MANY_STREAMS", message);
            return Err(fault.into_status(domain));
        }
        taken.insert(caller.to_owned(), own + 1);
        Ok(Seat { seats: self.clone(), caller: caller.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

/// Why a stream ends.
#[derive(Debug)]
pub enum Ending {
    /// Its reader went.
    Gone,
    /// Its reader does not read.
    TooSlow,
    /// The server stops.
    Stopped,
    /// Something else, which the reader is told.
    With(Box<Status>),
}

/// The side of a stream that tells.
#[derive(Debug)]
pub struct Teller<T>(mpsc::Sender<T>);

impl<T> Teller<T> {
    /// Hands a message to the reader, waiting for it as long as [`PATIENCE`] goes.
    pub async fn tell(&self, message: T) -> Result<(), Ending> {
        self.0.send_timeout(message, PATIENCE).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => Ending::TooSlow,
            mpsc::error::SendTimeoutError::Closed(_) => Ending::Gone,
        })
    }
}

/// Opens a stream that `task` tells, until the task ends, its reader goes, or `stop`. Endings are told under `domain`:
/// UNAVAILABLE READER_TOO_SLOW, WATCH_ENDED.
pub fn open<T, F, R>(domain: &'static str, seat: Seat, stop: CancellationToken, task: F) -> BoxStream<T>
where
    T: Send + 'static,
    F: FnOnce(Teller<T>) -> R,
    R: Future<Output = Ending> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    let (end, ended) = oneshot::channel();
    let reader = sender.clone();
    let told = task(Teller(sender));
    tokio::spawn(async move {
        let _seat = seat;
        let ending = tokio::select! {
            ending = told => ending,
            () = reader.closed() => Ending::Gone,
            () = stop.cancelled() => Ending::Stopped,
        };
        drop(reader);
        // Nobody listens any more when the reader has gone.
        let _ = end.send(ending);
    });
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok);
    let ending = futures::stream::once(ended)
        .filter_map(move |ending| ready(ending.ok().and_then(|ending| status(ending, domain)).map(Err)));
    Box::pin(messages.chain(ending))
}

fn status(ending: Ending, domain: &'static str) -> Option<Status> {
    match ending {
        Ending::Gone => None,
        Ending::TooSlow => {
            let message = "the stream was not read for too long: open it again";
            Some(Fault::new(Code::Unavailable, "READER_TOO_SLOW", message).into_status(domain))
        }
        Ending::Stopped => {
            let message = "the server stops: open the stream again";
            let fault = Fault::new(Code::Unavailable, "WATCH_ENDED", message);
            Some(fault.retry_after(COME_BACK).into_status(domain))
        }
        Ending::With(status) => Some(*status),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use crate::status::reason;

    const DOMAIN: &str = "test.clinic";

    fn counting(stop: &CancellationToken, seats: &Seats) -> BoxStream<u32> {
        let seat = seats.take("ana", DOMAIN).expect("a seat");
        open(DOMAIN, seat, stop.clone(), async |teller: Teller<u32>| {
            for n in 0.. {
                if let Err(ending) = teller.tell(n).await {
                    return ending;
                }
            }
            Ending::Gone
        })
    }

    #[tokio::test]
    async fn a_reader_who_does_not_read_is_let_go_and_told_so() {
        let seats = Seats::default();
        let mut stream = counting(&CancellationToken::new(), &seats);
        assert_eq!(stream.next().await.unwrap().unwrap(), 0);
        testkit::until("the seat is free", async || seats.0.lock().unwrap().is_empty().then_some(())).await;
        let rest: Vec<_> = stream.collect().await;
        let last = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!((last.code(), reason(last)), (Code::Unavailable, "READER_TOO_SLOW".to_owned()));
        assert!(rest.len() <= 3, "what waited, and the ending: {rest:?}");
    }

    #[tokio::test]
    async fn a_reader_who_goes_gives_the_seat_back_whatever_its_task_waits_for() {
        let seats = Seats::default();
        let seat = seats.take("ana", DOMAIN).expect("a seat");
        let stream = open(DOMAIN, seat, CancellationToken::new(), async |_: Teller<u32>| {
            std::future::pending::<Ending>().await
        });
        drop(stream);
        testkit::until("the seat is free", async || seats.0.lock().unwrap().is_empty().then_some(())).await;
    }

    #[tokio::test]
    async fn a_stopping_server_says_so() {
        let stop = CancellationToken::new();
        let mut stream = counting(&stop, &Seats::default());
        assert_eq!(stream.next().await.unwrap().unwrap(), 0);
        stop.cancel();
        let rest: Vec<_> = stream.collect().await;
        assert_eq!(reason(rest.last().unwrap().as_ref().unwrap_err()), "WATCH_ENDED");
    }

    #[tokio::test]
    async fn a_caller_has_so_many_streams_and_one_that_ends_makes_room() {
        let seats = Seats::default();
        let callers: Vec<String> = (0..MAX_STREAMS / MAX_STREAMS_OF_CALLER).map(|n| n.to_string()).collect();
        let mut taken: Vec<Seat> = vec![];
        for caller in &callers {
            taken.extend((0..MAX_STREAMS_OF_CALLER).map(|_| seats.take(caller, DOMAIN).unwrap()));
            assert_eq!(reason(&seats.take(caller, DOMAIN).unwrap_err()), "TOO_MANY_STREAMS");
        }
        assert!(seats.take("late", DOMAIN).is_err(), "all are taken");
        taken.pop();
        taken.push(seats.take("late", DOMAIN).unwrap());
        drop(taken);
        assert!(seats.0.lock().unwrap().is_empty(), "nobody is remembered");
    }
}

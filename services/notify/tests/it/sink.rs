//! A mail relay that keeps what it is given (RFC 5321, as much of it as a client needs).

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Addresses that begin so do not exist.
pub(crate) const NOBODY: &str = "nobody@";
/// The first e-mail to one that begins so is taken, and the answer lost.
pub(crate) const LOST: &str = "lost@";

/// The relay; clones share what it was given.
#[derive(Clone)]
pub(crate) struct Sink {
    mails: Arc<Mutex<Vec<String>>>,
    url: String,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("smtp://{}", listener.local_addr().expect("bound"));
        let sink = Self { mails: Arc::default(), url };
        let kept = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                // A client that hangs up is its own business.
                tokio::spawn(async move { kept.talk(stream).await.ok() });
            }
        });
        sink
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Each e-mail as it came, headers and all, with folded lines and soft breaks joined.
    pub(crate) fn mails(&self) -> Vec<String> {
        self.mails.lock().expect("nobody panics with it").clone()
    }

    async fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 sink\r\n").await?;
        let (mut line, mut lost) = (String::new(), false);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let answer = match line.get(..4).unwrap_or_default() {
                "RCPT" if line.contains(NOBODY) => "550 no such user\r\n",
                "RCPT" => {
                    lost = line.contains(LOST) && self.mails().is_empty();
                    "250 ok\r\n"
                }
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let mut mail = String::new();
                    while !mail.ends_with("\r\n.\r\n") {
                        stream.read_line(&mut mail).await?;
                    }
                    let whole = mail.replace("=\r\n", "").replace("\r\n ", "");
                    self.mails.lock().expect("nobody panics with it").push(whole);
                    if lost {
                        return Ok(());
                    }
                    "250 taken\r\n"
                }
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

//! The loop of one console client.

use crate::admin::answers::{self, Reload};
use crate::admin::conversation::{Conversation, Next};
use crate::fault::{Fault, SqlState};
use crate::relay::context::Context;
use crate::relay::login::Console;
use crate::relay::slot::{ClientSlot, Doing};
use crate::wire::frame::header;
use crate::wire::writers::{self, Severity};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The length field of a message at most, in bytes.
const MESSAGE_MAX: usize = 16 * 1024;
/// Answers are sent when they have grown beyond this, in bytes.
const UNSENT_MAX: usize = 64 * 1024;
/// Read at once, in bytes.
const CHUNK: usize = 4096;
/// How long a client that is sent away may take to read why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves somebody who has logged in to the console, until it leaves or pgweir shuts down.
pub async fn serve(console: Console, context: Arc<Context>, reload: Reload) {
    let slot = console.slot.clone();
    let _listed = Listed { context: &context, slot: &slot };
    let mut client = Client {
        console,
        context: &context,
        reload: &reload,
        conversation: Conversation::default(),
        received: Vec::new(),
        unsent: Vec::new(),
    };
    // Whoever is gone cannot be told anything; its going is no news.
    let _gone: io::Result<()> = client.run().await;
}

/// Leaves the list of clients, however the task ends.
struct Listed<'a> {
    context: &'a Context,
    slot: &'a ClientSlot,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.context.clients.leave(self.slot);
    }
}

struct Client<'a> {
    console: Console,
    context: &'a Context,
    reload: &'a Reload,
    conversation: Conversation,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

/// What woke an idle client.
enum Woken {
    Bytes,
    Gone,
    Ending,
}

impl Client<'_> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            if !self.serve_received().await? {
                return self.leave().await;
            }
            self.send().await?;
            match self.read().await {
                Woken::Bytes => {}
                Woken::Gone => return Ok(()),
                Woken::Ending => {
                    let fault = Fault::proxy(
                        SqlState::ADMIN_SHUTDOWN,
                        "terminating connection because pgweir is shutting down",
                    );
                    writers::fault(&mut self.unsent, Severity::Fatal, &fault.hint("Connect again."));
                    return self.leave().await;
                }
            }
        }
    }

    /// Serves every whole frame. False: the client is to be sent away.
    async fn serve_received(&mut self) -> io::Result<bool> {
        let mut served = 0;
        loop {
            let rest = self.received.get(served..).unwrap_or_default();
            let next = match header(rest, MESSAGE_MAX) {
                Ok(Some(head)) => match rest.get(..head.frame_len) {
                    Some(frame) => {
                        served += head.frame_len;
                        self.conversation.on_frame(frame, &mut self.unsent)
                    }
                    None => break,
                },
                Ok(None) => break,
                Err(error) => self.conversation.broken(error, &mut self.unsent),
            };
            if !self.perform(next).await? {
                return Ok(false);
            }
        }
        self.received.drain(..served);
        if self.received.is_empty() {
            // An idle client keeps no buffers.
            self.received = Vec::new();
        }
        Ok(true)
    }

    async fn perform(&mut self, mut next: Next) -> io::Result<bool> {
        loop {
            if self.unsent.len() > UNSENT_MAX {
                self.send().await?;
            }
            let command = match next {
                Next::Read => return Ok(true),
                Next::Close => return Ok(false),
                Next::Run(command) => command,
            };
            self.console.slot.set_doing(Doing::Active);
            let answer = answers::answer(&command, self.console.slot.user(), self.context, self.reload).await;
            self.console.slot.set_doing(Doing::Idle);
            next = self.conversation.on_answer(answer, &mut self.unsent);
        }
    }

    async fn read(&mut self) -> Woken {
        let Console { stream, slot } = &mut self.console;
        let received = &mut self.received;
        poll_fn(|cx| {
            let mut chunk = [0; CHUNK];
            match stream.poll_read_some(cx, &mut chunk) {
                Poll::Ready(Ok(len)) if len > 0 => {
                    received.extend_from_slice(chunk.get(..len).unwrap_or_default());
                    Poll::Ready(Woken::Bytes)
                }
                Poll::Ready(_) => Poll::Ready(Woken::Gone),
                Poll::Pending if slot.is_ending(cx) => Poll::Ready(Woken::Ending),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    async fn send(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.console.stream.write_all(&self.unsent).await?;
            self.console.stream.flush().await?;
            self.unsent = Vec::new();
        }
        Ok(())
    }

    async fn leave(&mut self) -> io::Result<()> {
        let farewell = async {
            self.send().await?;
            self.console.stream.shutdown().await
        };
        tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await.unwrap_or(Ok(()))
    }
}

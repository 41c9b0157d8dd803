//! Moves the bytes of an active client, both ways, as far as the sockets take them.

use crate::node::Role;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End, TO_SERVER_MAX};
use crate::relay::lost::Lost;
use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

/// How long a large answer may come together.
const REST: Duration = Duration::from_micros(500);

impl Client {
    /// Moves bytes until something has changed that the loop must look at.
    pub(super) fn poll_pump(
        &mut self,
        active: &mut Active,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Result<(), End>> {
        let unsent = !active.to_server.is_empty();
        if let Err(lost) = self.poll_send(active, cx) {
            return Poll::Ready(self.lost_server(active, lost));
        }
        // What did not fit behind it may go now.
        let mut changed = unsent && active.to_server.is_empty() && !active.requests.fresh().is_empty();
        if self.attached.is_some() {
            match self.poll_receive(active, cx) {
                Ok(done) => changed |= done,
                Err(Ok(lost)) => return Poll::Ready(self.lost_server(active, lost)),
                Err(Err(end)) => return Poll::Ready(Err(end)),
            }
        }
        let unsent = !active.answers.sendable().is_empty();
        ready!(self.poll_answer(active, cx))?;
        changed |= unsent;
        let unread = TO_SERVER_MAX.max(active.copy_left).max(active.wanted);
        if active.to_server.is_empty() && active.requests.fresh().len() < unread && !active.leaving {
            match self.stream.poll_read_some(cx, active.requests.room()) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                Poll::Ready(Ok(len)) => {
                    active.requests.filled(len);
                    changed = true;
                }
                Poll::Pending => {}
            }
        }
        if !changed && self.is_waiting_in_vain(active, cx) {
            return Poll::Ready(self.lost_server(active, Lost::hung()));
        }
        if changed { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Has the node of what is in flight been given up? A read can be sent elsewhere, and a primary
    /// that another one has replaced says nothing that still counts. Whatever else a frozen replica
    /// owes may still come when it thaws.
    fn is_waiting_in_vain(&self, active: &Active, cx: &std::task::Context<'_>) -> bool {
        let Some(record) = active.exchange.groups.front() else { return false };
        let on_primary = self.attached.as_ref().is_some_and(|attached| attached.role == Role::Primary);
        let may_give_up =
            on_primary || record.retriable || record.errand.is_some() || self.is_block_on_replica();
        may_give_up && self.slot.is_severed(cx)
    }

    /// Writes to the server what it has not got yet.
    fn poll_send(&mut self, active: &mut Active, cx: &mut std::task::Context<'_>) -> Result<(), Lost> {
        let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) else {
            active.to_server.clear();
            active.to_server_written = 0;
            return Ok(());
        };
        if active.to_server.is_empty() {
            return Ok(());
        }
        while active.to_server_written < active.to_server.len() {
            match connection.stream.poll_write_some(cx, &active.to_server[active.to_server_written..]) {
                Poll::Ready(Ok(len)) if len > 0 => active.to_server_written += len,
                // The server may have said why before it closed: what it said is read first.
                Poll::Ready(_) => {
                    active.to_server.clear();
                    active.to_server_written = 0;
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
        match connection.stream.poll_flush_all(cx) {
            Poll::Ready(Err(error)) => return Err(Lost::broken(&error)),
            Poll::Ready(Ok(())) => {
                active.to_server.clear();
                active.to_server_written = 0;
            }
            Poll::Pending => {}
        }
        Ok(())
    }

    /// Writes to the client what it may have. Ready when nothing is left.
    pub(super) fn poll_answer(
        &mut self,
        active: &mut Active,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Result<(), End>> {
        while !active.answers.sendable().is_empty() {
            match ready!(self.stream.poll_write_some(cx, active.answers.sendable())) {
                Ok(len) if len > 0 => active.answers.sent(len),
                Ok(_) | Err(_) => return Poll::Ready(Err(End::Gone)),
            }
        }
        match ready!(self.stream.poll_flush_all(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(End::Gone)),
        }
    }

    /// Lets what the server sends of a large answer come together for a moment. Everything that has come is with the
    /// client already. The server is not listened to meanwhile: each 8 KiB of it would wake this thread.
    pub(super) async fn gather(&mut self, active: &mut Active) {
        active.answers.rested();
        let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) else {
            return;
        };
        if connection.stream.go_deaf() {
            // The runtime's timers do not count in less than a millisecond.
            tokio::time::sleep(REST).await;
            connection.stream.listen();
        }
    }

    /// Moves bytes until every answer in flight is complete.
    pub async fn drive(&mut self, active: &mut Active) -> Result<(), End> {
        while !active.exchange.groups.is_empty() {
            poll_fn(|cx| self.poll_pump(active, cx)).await?;
        }
        Ok(())
    }
}

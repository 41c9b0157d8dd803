//! How an idle client waits: with a task and without a buffer, and after a while in the dormitory.

use crate::clock;
use crate::fault::{Fault, SqlState};
use crate::moment::Moment;
use crate::relay::buffer::{self, Active};
use crate::relay::client::{Client, End};
use crate::relay::dormitory;
use crate::wire::backend::TransactionStatus;
use std::future::poll_fn;
use std::task::Poll;

/// What woke an idle client's task.
#[derive(Debug)]
pub(super) enum Woken {
    /// Bytes of its client.
    Bytes(Box<Active>),
    /// Bytes of the server that it holds.
    Server(Box<Active>),
    /// It has had nothing to do for a while.
    Quiet,
}

impl Client {
    /// Waits for what comes next; not for ever, where that is limited and no transaction is open.
    pub(super) async fn rest(&mut self) -> Result<Woken, End> {
        self.slot.stir();
        let slept_since = std::mem::take(&mut self.rests_since);
        let limit = self.context.glance.idle_timeout();
        let Some(limit) = limit.filter(|_| self.session.state.status() == TransactionStatus::Idle) else {
            return self.idle().await;
        };
        let now = clock::now();
        let since = if slept_since == Moment::NEVER { now } else { slept_since };
        let woken = tokio::time::timeout(limit.saturating_sub(now.since(since)), self.idle()).await;
        if let Ok(Ok(Woken::Quiet)) = woken {
            self.rests_since = since;
        }
        woken.unwrap_or_else(|_| Err(End::Fatal(Box::new(idle_too_long()))))
    }

    /// Waits for the client's next bytes, without a buffer.
    async fn idle(&mut self) -> Result<Woken, End> {
        poll_fn(|cx| {
            let mut active = buffer::borrow();
            match self.stream.poll_read_some(cx, active.requests.room()) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                Poll::Ready(Ok(len)) => {
                    active.requests.filled(len);
                    return Poll::Ready(Ok(Woken::Bytes(active)));
                }
                Poll::Pending => {}
            }
            let outlives = self.attached.is_some() && self.outlives_server();
            if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection())
            {
                let room = active.answers.room(0).unwrap_or_default();
                match connection.stream.poll_read_some(cx, room) {
                    // What becomes of the transaction is decided when the client goes on with it.
                    Poll::Ready(Ok(0) | Err(_)) if outlives => {
                        self.ended = self.ended_here(false);
                        self.drop_connection();
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(lost_while_held(self))),
                    Poll::Ready(Ok(len)) => {
                        active.answers.filled(len);
                        return Poll::Ready(Ok(Woken::Server(active)));
                    }
                    Poll::Pending => {}
                }
            }
            buffer::give_back(active);
            if self.slot.is_ending(cx) && self.session.state.status() == TransactionStatus::Idle {
                return Poll::Ready(Err(End::Fatal(Box::new(shutting_down()))));
            }
            if self.slot.is_asked_to_sleep() {
                if self.may_sleep() {
                    return Poll::Ready(Ok(Woken::Quiet));
                }
                self.slot.stay_awake();
            }
            Poll::Pending
        })
        .await
    }

    /// Its task ends; the dormitory wakes it.
    pub(super) fn retire(self: Box<Self>) {
        let since = match self.rests_since {
            Moment::NEVER => clock::now(),
            since => since,
        };
        dormitory::receive(self, since);
    }
}

fn lost_while_held(client: &mut Client) -> End {
    client.drop_connection();
    End::Fatal(Box::new(
        Fault::server(SqlState::CONNECTION_FAILURE, "the server connection of this session was lost")
            .detail("The session kept it for an open transaction or for state that cannot be replayed.")
            .hint("Connect again and retry the transaction."),
    ))
}

fn idle_too_long() -> Fault {
    Fault::proxy(SqlState(*b"57P05"), "terminating connection due to idle-session timeout")
        .detail("limits.client_idle_timeout of pgweir has passed.")
}

fn shutting_down() -> Fault {
    Fault::proxy(SqlState::ADMIN_SHUTDOWN, "terminating connection because pgweir is shutting down")
        .hint("Connect again.")
}

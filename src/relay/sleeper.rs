//! What is kept of a client that sleeps: a quarter of a kilobyte in place of a task, a registration with the
//! runtime and a `Client`.

use crate::moment::Moment;
use crate::net::stream::Detached;
use crate::net::worker::Turn;
use crate::pool::tenant::Tenant;
use crate::relay::bonds::Bonds;
use crate::relay::catalogs::DatabaseCatalog;
use crate::relay::client::{Client, Parts};
use crate::relay::context::Context;
use crate::relay::slot::ClientSlot;
use crate::session::machine::Asleep;
use crate::sql::lexer::Dialect;
use crate::wire::backend::TransactionStatus;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// See the file's head.
#[derive(Debug)]
pub struct Sleeper {
    /// As others see it.
    pub slot: Arc<ClientSlot>,
    /// It decides on which worker it lives.
    pub turn: Turn,
    /// Since when it has had nothing to do.
    pub since: Moment,
    stream: Detached,
    tenant: Arc<Tenant>,
    database: Arc<DatabaseCatalog>,
    session: Asleep,
    bonds: Option<Box<Bonds>>,
    own_portal: Option<Box<[u8]>>,
    acknowledged: Option<(Moment, Moment)>,
    failovers: u64,
    dialect: Dialect,
    default_dialect: Dialect,
    prepared_limit: usize,
    names_limit: usize,
}

impl Client {
    /// Is there nothing but what a sleeper keeps?
    pub(super) fn may_sleep(&self) -> bool {
        // Every field by name: a new one has to be thought of here, and in `fall_asleep`.
        let Client {
            attached,
            session,
            ddl,
            upheavals,
            replay,
            ended,
            bond,
            survey,
            block,
            // Sleepers keep these.
            context: _,
            tenant: _,
            database: _,
            stream: _,
            turn: _,
            slot: _,
            dialect: _,
            default_dialect: _,
            acknowledged: _,
            failovers: _,
            bonds: _,
            own_portal: _,
            prepared_limit: _,
            names_limit: _,
            rests_since: _,
            // Of the group at hand: there is none.
            hints: _,
            arrived: _,
            ruled: _,
            begins_read_only: _,
            part: _,
            aligned: _,
            // Looked up when it is needed.
            met_by_session: _,
        } = self;
        session.state.status() == TransactionStatus::Idle
            && attached.is_none()
            && block.is_none()
            && ended.is_none()
            && replay.is_none()
            && upheavals.is_none()
            && bond.is_none()
            && survey.is_none()
            && !ddl
    }

    /// What is kept of it, for one that may sleep.
    pub(super) fn fall_asleep(self: Box<Self>, since: Moment) -> io::Result<Sleeper> {
        let client = *self;
        Ok(Sleeper {
            stream: client.stream.detach()?,
            slot: client.slot,
            turn: client.turn,
            since,
            tenant: client.tenant,
            database: client.database,
            session: client.session.asleep(),
            bonds: client.bonds,
            own_portal: client.own_portal.map(Vec::into_boxed_slice),
            acknowledged: client.acknowledged,
            failovers: client.failovers,
            dialect: client.dialect,
            default_dialect: client.default_dialect,
            prepared_limit: client.prepared_limit,
            names_limit: client.names_limit,
        })
    }
}

impl Sleeper {
    /// The client again, on the runtime of the calling thread.
    pub(super) fn awake(self, context: Arc<Context>) -> io::Result<Box<Client>> {
        let mut client = Client::new(Parts {
            context,
            tenant: self.tenant,
            database: self.database,
            stream: self.stream.attach()?,
            session: self.session.awake(),
            slot: self.slot,
            dialect: self.dialect,
        });
        client.turn = self.turn;
        client.rests_since = self.since;
        client.bonds = self.bonds;
        client.own_portal = self.own_portal.map(<[u8]>::into_vec);
        client.acknowledged = self.acknowledged;
        client.failovers = self.failovers;
        client.default_dialect = self.default_dialect;
        client.prepared_limit = self.prepared_limit;
        client.names_limit = self.names_limit;
        Ok(Box::new(client))
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    /// Each idle client has one; the allocator's next size class is 320 bytes.
    #[test]
    fn a_sleeper_is_small() {
        let size = size_of::<super::Sleeper>();
        assert!(size <= 256, "{size}");
    }
}

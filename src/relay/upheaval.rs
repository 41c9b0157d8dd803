//! Pooled connections get out of the way of those who drop or rename a database, and those whose role
//! or database is received in another way are made anew. PostgreSQL's own clients are not connected
//! where their users are not; a pool's are.

use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::relay::context::Context;
use crate::session::group::Group;
use crate::sql::effects::{Upheaval, upheavals_of};

impl Context {
    fn make_way(&self, upheaval: &Upheaval) {
        let (database, role) = match upheaval {
            Upheaval::Empties(database) => {
                self.catalogs.leave(database);
                (Some(database), None)
            }
            Upheaval::Renews { database, role } => (database.as_ref(), role.as_ref()),
        };
        for tenant in self.tenants() {
            let is_meant = database.is_none_or(|name| *name == tenant.server_database)
                && role.is_none_or(|name| *name == tenant.user);
            if is_meant {
                // Whether it may still log in is asked again, too.
                tenant.forget_welcomes();
                let closed: usize = tenant.pools().map(|pool| pool.clear()).sum();
                tracing::debug!(database = %tenant.database, user = %tenant.user, closed, "connections made way");
            }
        }
    }
}

impl Client {
    /// A group with DDL is about to be sent. The server waits some seconds for connections to end.
    pub fn make_way(&mut self, active: &Active, group: &Group) {
        let mut found = Vec::new();
        for text in self.texts_in(active, group) {
            found.extend(upheavals_of(text, self.dialect));
        }
        let empties = |upheaval: &&Upheaval| matches!(upheaval, Upheaval::Empties(_));
        found.iter().filter(empties).for_each(|upheaval| self.context.make_way(upheaval));
        if !found.is_empty() {
            self.upheavals.get_or_insert_default().extend(found);
        }
    }

    /// The transaction has ended: what was connected before or meanwhile is out of date.
    pub fn settle_upheavals(&mut self) {
        for upheaval in self.upheavals.take().into_iter().flat_map(|upheavals| *upheavals) {
            self.context.make_way(&upheaval);
        }
    }
}

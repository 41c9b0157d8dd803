//! Which of our statements a server connection has prepared; the least recently used leaves first.

use super::Statement;
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Statements of one server connection that may be there unknown to us.
const DOUBTED_MAX: usize = 1000;

/// Stands for the statement that asks a transaction for its number, where ids stand for those of clients.
pub const TELLS: u64 = u64::MAX;

/// What a pool's connections have prepared, counted; shared by all of them.
#[derive(Debug, Default)]
pub struct PreparedCounts {
    /// Prepared now.
    pub open: AtomicU64,
    /// Prepared because their client said Parse.
    pub asked: AtomicU64,
    /// Prepared because a client that had prepared them elsewhere came to this connection.
    pub moved: AtomicU64,
    /// Found prepared.
    pub hits: AtomicU64,
    /// Closed because the connection had too many.
    pub evicted: AtomicU64,
}

/// Why a statement is prepared on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Its client says Parse.
    Asked,
    /// Its client has prepared it on another connection, or before it was closed here.
    Moved,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct ServerStatements {
    prepared: HashMap<u64, Slot, RandomState>,
    /// Prepared twice in flight, or under settings that are not theirs: they may be there even where
    /// `prepared` does not say so.
    doubted: HashSet<u64>,
    uses: u64,
    counts: Arc<PreparedCounts>,
    /// Is it no longer known what is prepared? Then the connection may not be used again.
    pub distrusted: bool,
    /// Is it prepared what asks a transaction for its number (`machine/told.rs`)?
    pub tells: bool,
    /// The tag of the session's unnamed statement that the server holds; 0: none of ours.
    pub unnamed: u64,
}

#[derive(Debug)]
struct Slot {
    last_use: u64,
    statement: Arc<Statement>,
    copy: Held,
}

/// What is known of a statement's copy on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// What its columns hash to, where it was prepared apart (`machine/apart.rs`); 0: what its clients
    /// were told.
    pub columns: u64,
    /// Until when it is certain not to be older than the schema, as a number that grows.
    pub proven: u64,
}

impl ServerStatements {
    /// Those of a new connection, counted with others.
    pub fn counted(counts: Arc<PreparedCounts>) -> ServerStatements {
        let mut statements = ServerStatements::default();
        statements.counts = counts;
        statements
    }

    /// Its copy, if it is prepared. (Counts as a use.)
    pub fn find(&mut self, id: u64) -> Option<&mut Held> {
        self.uses += 1;
        let slot = self.prepared.get_mut(&id)?;
        slot.last_use = self.uses;
        self.counts.hits.fetch_add(1, Ordering::Relaxed);
        Some(&mut slot.copy)
    }

    /// Is it prepared? (Counts as nothing.)
    pub fn holds(&self, id: u64) -> bool {
        self.prepared.contains_key(&id)
    }

    /// What the columns of its copy hash to.
    pub fn note_columns(&mut self, id: u64, columns: u64) {
        if let Some(slot) = self.prepared.get_mut(&id) {
            slot.copy.columns = columns;
        }
    }

    /// It is being prepared, at the time `now`. Above `limit` statements, the one to close instead.
    pub fn insert(
        &mut self,
        statement: Arc<Statement>,
        limit: usize,
        cause: Cause,
        now: u64,
    ) -> Option<Arc<Statement>> {
        let evicted = (self.prepared.len() >= limit.max(1)).then(|| self.evict()).flatten();
        self.uses += 1;
        let slot = Slot { last_use: self.uses, statement, copy: Held { columns: 0, proven: now } };
        if self.prepared.insert(slot.statement.id, slot).is_none() {
            self.counts.open.fetch_add(1, Ordering::Relaxed);
        }
        self.count(cause);
        evicted
    }

    /// It is prepared for one use.
    pub fn count(&self, cause: Cause) {
        let counter = match cause {
            Cause::Asked => &self.counts.asked,
            Cause::Moved => &self.counts.moved,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// It is not prepared after all.
    pub fn remove(&mut self, id: u64) {
        match id {
            TELLS => self.tells = false,
            id => drop(self.take(id)),
        }
    }

    /// It is prepared once more behind a request that may fail, or not as others need it.
    pub fn doubt(&mut self, id: u64) -> Option<Arc<Statement>> {
        let slot = self.take(id);
        self.doubted.insert(id);
        // Each costs a few bytes; a connection that has met so many is replaced.
        self.distrusted |= self.doubted.len() > DOUBTED_MAX;
        slot.map(|slot| slot.statement)
    }

    /// May it be there unknown to us?
    pub fn is_doubted(&self, id: u64) -> bool {
        self.doubted.contains(&id)
    }

    /// The unnamed statement with this tag did not come to be. What was parsed since then is another one.
    pub fn lost_unnamed(&mut self, tag: u64) {
        if self.unnamed == tag {
            self.unnamed = 0;
        }
    }

    /// DEALLOCATE ALL or DISCARD ALL has run.
    pub fn clear(&mut self) {
        self.counts.open.fetch_sub(self.prepared.len() as u64, Ordering::Relaxed);
        self.prepared.clear();
        self.doubted.clear();
        self.tells = false;
        self.unnamed = 0;
    }

    /// How many are prepared.
    pub fn len(&self) -> usize {
        self.prepared.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.prepared.is_empty()
    }

    fn take(&mut self, id: u64) -> Option<Slot> {
        let slot = self.prepared.remove(&id)?;
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        Some(slot)
    }

    fn evict(&mut self) -> Option<Arc<Statement>> {
        let (&oldest, _) = self.prepared.iter().min_by_key(|(_, slot)| slot.last_use)?;
        self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        self.take(oldest).map(|slot| slot.statement)
    }
}

impl Drop for ServerStatements {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(self.prepared.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_statement_leaves_a_full_connection_and_all_is_counted() {
        let counts = Arc::new(PreparedCounts::default());
        let mut server = ServerStatements::counted(counts.clone());
        assert!(server.insert(Statement::plain(1), 2, Cause::Asked, 1).is_none());
        assert!(server.insert(Statement::plain(2), 2, Cause::Moved, 2).is_none());
        assert!(server.find(1).is_some());
        assert_eq!(server.insert(Statement::plain(3), 2, Cause::Asked, 3).map(|evicted| evicted.id), Some(2));
        assert!(server.find(1).is_some() && server.find(3).is_some() && server.find(2).is_none());
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seen = [&counts.open, &counts.asked, &counts.moved, &counts.hits, &counts.evicted].map(read);
        assert_eq!(seen, [2, 2, 1, 3, 1]);
        server.doubt(3);
        assert_eq!(read(&counts.open), 1);
        drop(server);
        assert_eq!(read(&counts.open), 0);
    }
}

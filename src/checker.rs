//! Judges what sessions were shown by a database: pure, with constant work per operation.
//!
//! *Registers* have one writer each, which numbers its writes; a write puts its number into one of
//! the register's cells (number modulo cells), and the next one begins only when it is acknowledged.
//! So whoever has seen number `n` must see every number up to `n`, and how new a read is is one number.
//! *Lists* have many writers; the server says at which position an element landed, and a read shows
//! the length and the last elements.
//!
//! What was known when an operation began is noted then, and compared with what it showed when it has
//! ended. An observer that notes the beginning before it sends, and the end after it has received,
//! only makes intervals longer: what is found is certain, whatever the scheduling.

mod checks;
mod history;
mod list;
mod operation;
mod violation;

pub use history::{History, Pending, Shape};
pub use operation::{
    Evidence, Item, Kind, Level, ListView, Observation, Operation, Outcome, Served, SessionId,
};
pub use violation::{Guarantee, Violation};

#[cfg(test)]
mod tests;

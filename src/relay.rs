//! Moves the bytes of one client: `bytes → frame → group → decide → checkout → forward → reply → account`.
//!
//! One task per client holds both ends, so an answer wakes nobody else. While nothing is in flight
//! the task owns a socket and a `Session`, and no buffer.

pub mod answer;
pub mod apart;
pub mod bonds;
pub mod buffer;
pub mod cancel;
pub mod catalog_reader;
pub mod catalogs;
pub mod client;
pub mod context;
pub mod dormitory;
pub mod doubt;
pub mod draw;
mod fence;
pub mod find;
pub mod first_packet;
pub mod glance;
pub mod login;
pub mod lookup;
pub mod losses;
pub mod lost;
pub mod lost_transaction;
pub mod own;
pub mod parameters;
pub mod pauses;
pub mod place;
pub mod pump;
pub mod reach;
pub mod read_only;
pub mod recycle;
pub mod refusal;
pub mod replication;
mod rest;
pub mod rule;
pub mod secrets;
pub mod sleeper;
pub mod slot;
mod split;
pub mod sql_client;
pub mod survey;
pub mod tokens;
pub mod transcript;
pub mod upheaval;
pub mod welcome;

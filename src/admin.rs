//! The virtual database `pgweir`: the console.
//!
//! Whoever has logged in may look (`SHOW …`). `RELOAD` is for the users that stand in `auth.users`;
//! those who are known only through `auth.query` may not.
//!
//! `command` reads texts, `conversation` speaks the protocol, `tables` makes rows of facts; none of
//! them touches a socket. `answers` collects the facts, `serve` moves the bytes.

mod answers;
mod command;
mod conversation;
mod operate;
mod serve;
mod tables;

pub use answers::Reload;
pub use serve::serve;

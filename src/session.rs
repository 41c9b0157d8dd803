//! One client's life, as values: what it asks, what it is owed, what state its session carries.

pub mod block;
pub mod bound;
pub mod exchange;
#[cfg(test)]
mod fixtures;
pub mod group;
pub mod machine;
pub mod pins;
pub mod prepared;
pub mod reply_queue;
pub mod settings;
pub mod split;
pub mod state;
pub mod told;
pub mod transcript;

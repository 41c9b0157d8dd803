//! Server connections, and who waits for them.

pub mod slots;

#[cfg(feature = "shell")]
pub mod checkout;
#[cfg(feature = "shell")]
pub mod connect;
#[cfg(feature = "shell")]
pub mod server;
#[cfg(feature = "shell")]
pub mod tenant;

//! Who is the client, and who are we to a server.
//!
//! Everything below this module is pure: bytes and randomness come in as arguments, bytes and
//! decisions come out. Nothing here reads a clock, a socket or a random number generator.

pub mod cache;
pub mod keys;
pub mod login;
pub mod md5;
pub mod messages;
pub mod scram;
pub mod secret;
pub mod server_login;

pub use cache::{Cached, SecretCache, SecretCacheLimits};
pub use keys::DerivedKeys;
pub use login::{AuthStep, Login, LoginParams, Method};
pub use secret::{Secret, ServerCredential};
pub use server_login::{CleartextPolicy, ServerLogin, ServerLoginStep};

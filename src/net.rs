//! Listener, TLS, streams.

pub mod listener;
pub mod staffing;
pub mod stream;
pub mod tls;
pub mod worker;

/// Fills `bytes` from the operating system's generator. If that fails (it does not on a running
/// Linux) the process must not go on handing out guessable secrets.
pub fn random_fill(bytes: &mut [u8]) {
    if aws_lc_rs::rand::fill(bytes).is_err() {
        std::process::abort();
    }
}

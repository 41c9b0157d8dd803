//! The configuration: a YAML file → a tree with positions → its shape, checked → [`Settings`].
//!
//! What is wrong with a file is said all at once, each mistake with file, line, column, the key's
//! path and the nearest valid key.

mod diff;
mod expand;
mod keys;
mod load;
mod mistake;
mod nearest;
mod reader;
mod secret;
pub mod settings;
mod shape;
mod tree;
pub mod values;

pub use diff::{ReloadAction, diff};
pub use load::{load, parse};
pub use mistake::{ConfigError, Mistake, Span};
pub use secret::Secret;
pub use settings::Settings;

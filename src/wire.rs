//! Bytes → frame → message, and back. The frame is cut first; a view reads inside it and nowhere else.
//!
//! Sources: PostgreSQL manual, "Frontend/Backend Protocol", sections Message Flow and Message Formats.

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod startup;
pub mod writers;

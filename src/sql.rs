//! Text → class: what may a statement do, and therefore where may it run?

pub mod cache;
pub mod catalog;
pub mod class;
pub mod classify;
pub mod control;
pub mod effects;
pub mod functions;
pub mod lexer;
pub mod named;
pub mod subjects;
pub mod tags;

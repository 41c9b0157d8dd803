//! Knowledge of the cluster: measured, timed, published as an immutable picture.

pub mod health;
pub mod roles;
pub mod view;

//! Knowledge of the cluster: measured, timed, published as an immutable picture.

pub mod evidence;
pub mod health;
pub mod patroni;
pub mod resolver;
pub mod roles;
pub mod view;

//! One file for each command.

pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod quotas;
pub(crate) mod sandbox;
pub(crate) mod serve;
pub(crate) mod usage;

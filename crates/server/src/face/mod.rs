//! One file for each dialect that clients speak.

pub(crate) mod openai;

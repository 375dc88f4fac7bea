//! What a configuration is read in, and secrets by reference: `env:NAME`, `file:PATH`, or the text itself.

use std::path::Path;

use freeway_types::{Secret, Timestamp};

/// What a configuration is read in.
pub struct Surroundings<'a> {
    /// Reads an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The folder that relative paths in the file start from.
    pub folder: &'a Path,
    /// The time, for the age of facts.
    pub now: Timestamp,
}

/// Why a reference leads nowhere.
pub(crate) enum Missing {
    Environment(String),
    File(String, String),
    Empty,
}

impl Missing {
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Environment(name) => format!("the environment variable {name} is not set"),
            Self::File(path, error) => format!("the file {path} cannot be read: {error}"),
            Self::Empty => "the key is empty".to_owned(),
        }
    }
}

impl Missing {
    /// What to do about it.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Environment(name) => format!("export {name}=… before the start, or refer to another place"),
            Self::File(..) => "a path starts from the configuration's own folder".to_owned(),
            Self::Empty => "write env:NAME, file:PATH, or the key itself".to_owned(),
        }
    }
}

/// Follows a reference.
pub(crate) fn secret(text: &str, surroundings: &Surroundings<'_>) -> Result<Secret, Missing> {
    let found = if let Some(name) = text.strip_prefix("env:") {
        (surroundings.variable)(name).ok_or_else(|| Missing::Environment(name.to_owned()))?
    } else if let Some(path) = text.strip_prefix("file:") {
        std::fs::read_to_string(surroundings.folder.join(path))
            .map_err(|error| Missing::File(path.to_owned(), error.to_string()))?
    } else {
        text.to_owned()
    };
    let found = found.trim();
    if found.is_empty() { Err(Missing::Empty) } else { Ok(Secret::new(found)) }
}

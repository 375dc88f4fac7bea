//! The provider files that are built in, and reading a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::facts::Provider;
use crate::validate::{Problem, validate};

/// The text of every built-in provider file, by id.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/providers.rs"));

/// All provider files that are known: the built-in ones, and an overlay folder's over them.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    providers: BTreeMap<String, Provider>,
}

/// A provider file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The file or folder could not be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The text is not TOML of the right shape.
    #[error("{place}: {message}")]
    Malformed {
        /// The file's name.
        place: String,
        /// What is wrong, with its line.
        message: String,
    },
    /// The facts contradict each other or the schema's rules.
    #[error("{place}: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// The file's name.
        place: String,
        /// Everything that is wrong.
        problems: Vec<Problem>,
    },
}

/// Reads one provider file.
///
/// # Errors
/// When the text is not TOML of the schema, or does not pass [`validate`].
pub fn parse(place: &str, text: &str) -> Result<Provider, FileProblem> {
    let provider: Provider = toml::from_str(text)
        .map_err(|error| FileProblem::Malformed { place: place.to_owned(), message: error.to_string() })?;
    let problems = validate(&provider);
    if problems.is_empty() { Ok(provider) } else { Err(FileProblem::Invalid { place: place.to_owned(), problems }) }
}

impl Catalog {
    /// The built-in files.
    ///
    /// # Errors
    /// When a built-in file is invalid, which a test rules out.
    pub fn embedded() -> Result<Self, FileProblem> {
        let mut providers = BTreeMap::new();
        for (id, text) in EMBEDDED {
            providers.insert((*id).to_owned(), parse(&format!("{id}.toml"), text)?);
        }
        Ok(Self { providers })
    }

    /// Lays a file over what is known: it replaces the one of the same name.
    ///
    /// # Errors
    /// When the text is invalid.
    pub fn lay_over(&mut self, path: &Path, text: &str) -> Result<(), FileProblem> {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.providers.insert(id, parse(&path.display().to_string(), text)?);
        Ok(())
    }

    /// The facts of one provider.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Provider> {
        self.providers.get(id)
    }

    /// All providers, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Provider)> {
        self.providers.iter().map(|(id, provider)| (id.as_str(), provider))
    }
}

/// The `*.toml` files of a folder, with their text.
///
/// # Errors
/// When the folder or one of them cannot be read.
pub fn files_of(folder: &Path) -> Result<Vec<(PathBuf, String)>, FileProblem> {
    let unreadable = |path: &Path, error| FileProblem::Unreadable { path: path.to_owned(), error };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let path = entry.map_err(|error| unreadable(folder, error))?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
            files.push((path, text));
        }
    }
    files.sort();
    Ok(files)
}

/// The built-in files, by id, as they are written.
#[must_use]
pub fn built_in() -> &'static [(&'static str, &'static str)] {
    EMBEDDED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_file_is_valid() {
        for (id, text) in EMBEDDED {
            if let Err(problem) = parse(id, text) {
                panic!("{problem}");
            }
        }
    }

    #[test]
    fn a_file_of_the_users_own_replaces_the_built_in_one() {
        let own = "base_url = \"http://127.0.0.1:1/v1\"\ndialect = \"openai-chat\"\n";
        let mut catalog = Catalog::embedded().unwrap();
        catalog.lay_over(Path::new("mine/groq.toml"), own).unwrap();
        assert_eq!(catalog.get("groq").unwrap().base_url.as_deref(), Some("http://127.0.0.1:1/v1"));
        assert!(catalog.lay_over(Path::new("mine/groq.toml"), "base_url = 7\n").is_err());
    }
}

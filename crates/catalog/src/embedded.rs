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

    /// Lays the files of a folder over what is known: a file replaces the one of the same name.
    ///
    /// # Errors
    /// When the folder or one of its `*.toml` files cannot be read or is invalid.
    pub fn overlay(&mut self, folder: &Path) -> Result<(), FileProblem> {
        let unreadable = |error| FileProblem::Unreadable { path: folder.to_owned(), error };
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            let text =
                fs::read_to_string(&path).map_err(|error| FileProblem::Unreadable { path: path.clone(), error })?;
            let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            self.providers.insert(id, parse(&path.display().to_string(), &text)?);
        }
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
    fn a_file_of_the_overlay_replaces_the_built_in_one() {
        let folder = std::env::temp_dir().join(format!("freeway-overlay-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("groq.toml"), "base_url = \"http://127.0.0.1:1/v1\"\ndialect = \"openai-chat\"\n")
            .unwrap();
        let mut catalog = Catalog::embedded().unwrap();
        catalog.overlay(&folder).unwrap();
        assert_eq!(catalog.get("groq").unwrap().base_url.as_deref(), Some("http://127.0.0.1:1/v1"));
        fs::write(folder.join("groq.toml"), "base_url = 7\n").unwrap();
        assert!(catalog.overlay(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}

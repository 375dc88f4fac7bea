//! The one place where the program's environment and files are looked at.

use std::path::{Path, PathBuf};

use freeway_config::{Card, Loaded, Surroundings, load, load_with_more};
use freeway_types::Timestamp;
use jiff::tz::TimeZone;

/// The file that is used when it is there and no other is named.
const DEFAULT_FILE: &str = "freeway.toml";

/// Reads an environment variable.
#[expect(clippy::disallowed_methods, reason = "this is the one place where the environment is read")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The time zone of who reads: that of `TZ`, else the machine's; UTC if neither is known.
pub(crate) fn zone() -> TimeZone {
    TimeZone::system()
}

/// The configuration file that a command is to use: the one named, else `freeway.toml` if it is there.
pub(crate) fn file(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()))
}

/// Reads the configuration: the file's, or what follows from the environment where there is none.
pub(crate) fn configuration(named: Option<&Path>, now: Timestamp) -> Result<Loaded, String> {
    match file(named) {
        Some(path) => {
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            read(&path.display().to_string(), Some(&text), folder, now)
        }
        None => read("the environment", None, Path::new("."), now),
    }
}

/// Reads a configuration from a text.
pub(crate) fn read(name: &str, text: Option<&str>, folder: &Path, now: Timestamp) -> Result<Loaded, String> {
    let surroundings = Surroundings { variable: &variable, folder, now };
    load(name, text, &surroundings).map_err(|diagnostics| diagnostics.to_string())
}

/// Reads the same configuration as [`configuration`] with an account more at each provider of the catalogue, on `plan`, and
/// gives the catalogue's cards: for finding out what such accounts would bring.
pub(crate) fn configuration_with_more(
    named: Option<&Path>,
    now: Timestamp,
    plan: &str,
) -> Result<(Loaded, Vec<Card>), String> {
    let path = file(named);
    let text = path.as_ref().map(std::fs::read_to_string).transpose();
    let name = path.as_ref().map_or("the environment".to_owned(), |path| path.display().to_string());
    let text = text.map_err(|error| format!("{name}: {error}"))?;
    let folder = path.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    let surroundings = Surroundings { variable: &variable, folder: folder.unwrap_or(Path::new(".")), now };
    load_with_more(&name, text.as_deref(), &surroundings, plan).map_err(|diagnostics| diagnostics.to_string())
}

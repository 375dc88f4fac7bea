//! The way out of the network: a proxy, and certificates that somebody in between makes.

use freeway_upstream::{Proxy, Roots};

use crate::reference::{Missing, Surroundings, secret};

/// A message, and what to do about it.
pub(crate) type Mistake = (String, String);

/// Reads where the proxy is. Nothing at all, also behind a reference, means none.
///
/// # Errors
/// What is wrong, without what was written: that may be a password.
pub(crate) fn proxy(text: &str, surroundings: &Surroundings<'_>) -> Result<Option<Proxy>, Mistake> {
    let url = match secret(text, surroundings) {
        Ok(url) => url,
        Err(Missing::Empty) => return Ok(None),
        Err(missing) => return Err((missing.message(), missing.help())),
    };
    let help = "write http://host:port, with user:password@ before the host if it asks who you are; characters such as \
                @ and / in a password are written as %40 and %2F";
    Proxy::parse(url.expose()).map(Some).map_err(|error| (error.to_string(), help.to_owned()))
}

/// Reads root certificates from a file.
///
/// # Errors
/// Which file is wrong, and how.
pub(crate) fn roots(path: &str, surroundings: &Surroundings<'_>) -> Result<Roots, Mistake> {
    let missing = |error: std::io::Error| {
        let missing = Missing::File(path.to_owned(), error.to_string());
        (missing.message(), missing.help())
    };
    let pem = std::fs::read(surroundings.folder.join(path)).map_err(missing)?;
    let help = "it holds certificates in PEM form, which begin with -----BEGIN CERTIFICATE-----";
    Roots::parse(&pem)
        .map_err(|error| (format!("the file {path} brings no root certificates: {error}"), help.to_owned()))
}

//! Whom we believe to be who they say: the built-in root certificates, and those of the operator.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The operator's own root certificates, beside the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(Vec<CertificateDer<'static>>);

/// Why a text brings no root certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// There is none in it.
    #[error("there is no certificate in it")]
    None,
    /// It is damaged, or no certificate.
    #[error("certificate {place} cannot be read: {error}")]
    Unreadable {
        /// Which one, from 1.
        place: usize,
        /// What is wrong with it.
        error: String,
    },
}

impl Roots {
    /// Reads every certificate of a PEM text; what else is in it does not matter.
    ///
    /// # Errors
    /// When there is none, or one cannot be read.
    pub fn parse(pem: &[u8]) -> Result<Self, RootsError> {
        let mut all = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let unreadable = |error: String| RootsError::Unreadable { place: all.len() + 1, error };
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            RootCertStore::empty().add(certificate.clone()).map_err(|error| unreadable(error.to_string()))?;
            all.push(certificate);
        }
        if all.is_empty() { Err(RootsError::None) } else { Ok(Self(all)) }
    }

    /// Whether there is nothing beside the built-in ones.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How to set up TLS that trusts the built-in roots and these, and offers HTTP/2.
    ///
    /// # Errors
    /// When the cryptography cannot be set up.
    pub(crate) fn trust(&self) -> io::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in &self.0 {
            roots.add(certificate.clone()).map_err(io::Error::other)?;
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        trust.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(trust))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &[u8] = include_bytes!("../tests/certificates/authority.pem");

    #[test]
    fn a_text_without_a_whole_certificate_is_refused() {
        assert_eq!(Roots::parse(AUTHORITY).unwrap().0.len(), 1);
        assert_eq!(Roots::parse(&[AUTHORITY, AUTHORITY].concat()).unwrap().0.len(), 2);
        for nothing in ["", "not a certificate", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert_eq!(Roots::parse(nothing.as_bytes()), Err(RootsError::None), "{nothing}");
        }
        for damaged in
            ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"]
        {
            let text = [AUTHORITY, damaged.as_bytes()].concat();
            assert!(matches!(Roots::parse(&text), Err(RootsError::Unreadable { place: 2, .. })), "{damaged}");
        }
    }
}

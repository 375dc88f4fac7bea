//! What the HTTP library lets pass and a careful gateway does not, as far as its headers show it.

use freeway_dialect::ClientError;
use http::HeaderMap;
use http::header::{ORIGIN, TRANSFER_ENCODING};

const MOST_BYTES: usize = 64 * 1024;

/// Refuses codings of the body but chunks, headers that are too large, and a second origin.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), ClientError> {
    let invalid = |message: &str| Err(ClientError::new(400, "invalid_request", message));
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some())
    {
        return invalid("the only transfer-encoding taken is chunked");
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > MOST_BYTES {
        return Err(ClientError::new(431, "headers_too_large", "the headers are larger than 64 KiB"));
    }
    if headers.get_all(ORIGIN).iter().count() > 1 {
        return invalid("a request names its origin once");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(lines: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        check(&headers).is_ok()
    }

    #[test]
    fn what_headers_may_say() {
        assert!(accepts(&[("content-length", "5")]));
        assert!(accepts(&[("transfer-encoding", "Chunked")]));
        assert!(!accepts(&[("transfer-encoding", "gzip, chunked")]));
        assert!(!accepts(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
        assert!(!accepts(&[("origin", "http://localhost"), ("origin", "http://evil.test")]));
    }
}

//! Taking secrets out of what upstreams say before anybody sees it.

use freeway_types::Secret;

/// Longest upstream text that is kept.
const LONGEST: usize = 512;
/// Longest code or field name of an upstream's.
const LONGEST_WORD: usize = 64;
/// What stands where a secret stood.
const MASK: &str = "[removed]";
/// Beginnings by which keys of the usual providers are known.
const KEY_PREFIXES: [&str; 6] = ["sk-", "gsk_", "AIza", "csk-", "hf_", "xai-"];

/// Takes secrets out of texts.
#[derive(Default)]
pub struct Scrubber {
    secrets: Vec<Secret>,
}

impl Scrubber {
    /// A scrubber that knows these secrets letter for letter, and others by their looks.
    #[must_use]
    pub fn new(secrets: Vec<Secret>) -> Self {
        Self { secrets: secrets.into_iter().filter(|secret| secret.expose().len() >= 4).collect() }
    }

    /// A provider's code or the name of a field: scrubbed, and short.
    #[must_use]
    pub fn scrub_word(&self, text: &str) -> String {
        self.scrub(text).chars().filter(|letter| !letter.is_control()).take(LONGEST_WORD).collect()
    }

    /// The text without secrets, without the rest of URLs behind their host, and not too long.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.expose(), MASK);
        }
        let mut clean = String::with_capacity(text.len().min(LONGEST));
        for (position, word) in text.split(' ').enumerate() {
            if position > 0 {
                clean.push(' ');
            }
            clean.push_str(&mask(word));
            if clean.len() > LONGEST {
                break;
            }
        }
        match clean.char_indices().find(|(at, _)| *at >= LONGEST) {
            Some((at, _)) => format!("{}…", &clean[..at]),
            None => clean,
        }
    }
}

fn mask(word: &str) -> String {
    if let Some(at) = word.find("://") {
        let host_end = word[at + 3..].find(['/', '?', '#']).map_or(word.len(), |end| at + 3 + end);
        let authority = &word[at + 3..host_end];
        let host = authority.rsplit('@').next().unwrap_or(authority);
        return format!("{}://{host}", &word[..at]);
    }
    for prefix in KEY_PREFIXES {
        if let Some(at) = word.find(prefix)
            && word.len() - at >= prefix.len() + 8
        {
            return format!("{}{MASK}", &word[..at]);
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_left() {
        let scrubber = Scrubber::new(vec![Secret::new("canary-4711")]);
        let check = |text: &str, expected: &str| assert_eq!(scrubber.scrub(text), expected);
        check("key canary-4711 is wrong", "key [removed] is wrong");
        check("Incorrect API key provided: sk-test-abcdefgh.", "Incorrect API key provided: [removed]");
        check("see https://user:pw@host.example/path?key=x now", "see https://host.example now");
        check("an ordinary sentence", "an ordinary sentence");
        assert!(scrubber.scrub(&"x".repeat(10_000)).len() < 600);
        assert!(scrubber.scrub(&"ü".repeat(10_000)).len() < 600);
    }
}

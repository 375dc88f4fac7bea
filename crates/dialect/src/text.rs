//! What can be told of a text's tokens without a tokenizer: its size and its script.
//!
//! All of it is counting bytes of one kind, in loops that compile to vector instructions: a text of 100 KB costs some
//! ten microseconds in ASCII and seventy in other scripts. The text is measured as it stands in JSON. An escape
//! such as `\u0434` hides a letter of two bytes behind six, so those are counted as what they stand for; shorter ones,
//! such as `\n`, are left as they are.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// What an escaped letter begins with.
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));

/// Which letters a text is written in, as far as tokenizers care: each kind has a tokens-to-bytes ratio of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Script {
    /// Prose in ASCII letters, with at most a few accents.
    Latin,
    /// ASCII with much punctuation or many digits: code, JSON, tables, and short requests, whose own JSON outweighs
    /// their text.
    Code,
    /// ASCII with a good part of something else, such as Vietnamese, or code with comments in Chinese.
    Mixed,
    /// Letters of two bytes: Cyrillic, Greek, Hebrew, Arabic.
    TwoByte,
    /// Chinese, Japanese and Korean.
    Cjk,
    /// Other letters of three and four bytes, such as Devanagari or Thai, and pictographs.
    Other,
}

impl Script {
    /// Every script, in the order of their discriminants.
    pub const ALL: [Self; 6] = [Self::Latin, Self::Code, Self::Mixed, Self::TwoByte, Self::Cjk, Self::Other];

    /// Its name in reports and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latin => "latin",
            Self::Code => "code",
            Self::Mixed => "mixed",
            Self::TwoByte => "two-byte",
            Self::Cjk => "cjk",
            Self::Other => "other",
        }
    }
}

/// The measure of a text that may come in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextMeasure {
    /// Bytes as written.
    pub written: u64,
    /// Bytes in UTF-8, with `\u` escapes counted as the letters they stand for.
    pub bytes: u64,
    /// Bytes that the text can have at most once a tokenizer has normalised it, by Unicode's form C or KC. Few letters
    /// grow so, such as the sign ㌖, which stands for six letters of three bytes.
    pub most_bytes: u64,
    /// ASCII letters and spaces.
    words: u64,
    /// Bytes of letters of two bytes.
    two_byte: u64,
    /// Bytes of Chinese, Japanese and Korean letters.
    cjk: u64,
    /// Bytes of other letters that are not ASCII.
    other: u64,
}

// No `matches!` and no `||` here: they would become branches, and the loop would not become vectors.

/// Whether a letter that begins with these two bytes can grow under normalisation, by so many bytes at most. Held
/// against every letter of version 14 of Unicode's tables; most letters of living languages do not grow at all.
const fn grows_by_3(first: u8, next: u8) -> bool {
    let latin = (first == 0xC2) | (first.wrapping_sub(0xC4) <= 0xCD - 0xC4);
    let two = latin | ((first == 0xCE) & (next < 0x86)) | ((first == 0xD6) & (next == 0x87));
    let three = (first & 0xFE == 0xE0) | (first == 0xE3) | (first == 0xEF);
    two | ((first == 0xD9) & (next >= 0xB5)) | three
}

const fn grows_by_9(first: u8, next: u8) -> bool {
    (first == 0xE2) | (first >= 0xF0) | ((first == 0xE0) & (next >= 0xBD))
}

/// U+3200 to U+33FF: words and dates in one square.
const fn grows_by_15(first: u8, next: u8) -> bool {
    (first == 0xE3) & (next & 0xF8 == 0x88)
}

/// U+FDC0 to U+FDFF: a whole blessing in one letter.
const fn grows_by_30(first: u8, next: u8) -> bool {
    (first == 0xEF) & (next == 0xB7)
}

const fn begins_two(byte: u8, _next: u8) -> bool {
    byte & 0xE0 == 0xC0
}

const fn begins_cjk(byte: u8, _next: u8) -> bool {
    byte.wrapping_sub(0xE3) <= 0xED - 0xE3
}

const fn begins_three(byte: u8, _next: u8) -> bool {
    byte & 0xF0 == 0xE0
}

const fn begins_four(byte: u8, _next: u8) -> bool {
    byte >= 0xF0
}

/// Loops count in bytes, which vectors hold most of, and so for no longer than a byte can; in whole vectors of any size.
const CHUNK: usize = 192;

/// A share from which on letters other than ASCII, or signs other than letters, make a text another script: an eighth.
const NOTABLE: u64 = 8;

impl TextMeasure {
    /// Adds a piece of JSON text, cut at ASCII characters.
    pub fn add(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let length = bytes.len() as u64;
        self.written += length;
        self.bytes += length;
        self.most_bytes += length;
        self.words += words(bytes);
        if !bytes.is_ascii() {
            self.add_letters(bytes);
        }
        self.add_escapes(bytes);
    }

    /// The script of all that was added.
    #[must_use]
    pub fn script(&self) -> Script {
        let foreign = self.two_byte + self.cjk + self.other;
        if foreign * NOTABLE < self.bytes {
            let signs = self.bytes.saturating_sub(foreign + self.words);
            return if signs * NOTABLE < self.bytes { Script::Latin } else { Script::Code };
        }
        if foreign * 2 < self.bytes {
            Script::Mixed
        } else if self.two_byte * 2 >= foreign {
            Script::TwoByte
        } else if self.cjk * 2 >= foreign {
            Script::Cjk
        } else {
            Script::Other
        }
    }

    /// Counts letters that are not ASCII, by their first two bytes. The last byte of a text never begins one.
    fn add_letters(&mut self, bytes: &[u8]) {
        let following = bytes.get(1..).unwrap_or_default();
        for (chunk, next) in bytes[..following.len()].chunks(CHUNK).zip(following.chunks(CHUNK)) {
            let (two, three) = (count(chunk, next, begins_two), count(chunk, next, begins_three));
            let (cjk, four) = (count(chunk, next, begins_cjk), count(chunk, next, begins_four));
            let (by_3, by_9) = (count(chunk, next, grows_by_3), count(chunk, next, grows_by_9));
            let (by_15, by_30) = (count(chunk, next, grows_by_15), count(chunk, next, grows_by_30));
            self.two_byte += 2 * u64::from(two);
            self.cjk += 3 * u64::from(cjk);
            self.other += 3 * u64::from(three - cjk) + 4 * u64::from(four);
            self.most_bytes +=
                3 * u64::from(by_3) + 9 * u64::from(by_9) + 15 * u64::from(by_15) + 30 * u64::from(by_30);
        }
    }

    /// Counts `\u` escapes as the letters they stand for. Rare enough to be looked at one by one.
    fn add_escapes(&mut self, bytes: &[u8]) {
        for at in ESCAPE.find_iter(bytes) {
            // Behind an odd number of backslashes this one is itself escaped, and no escape.
            let before = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
            let digits = bytes.get(at + 2..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
            let Some(unit) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else { continue };
            if before % 2 == 1 {
                continue;
            }
            // A letter of four bytes takes two escapes: the first counts for both. Any such letter stands for all.
            let letter = match unit {
                0xD800..0xDC00 => Some('\u{10000}'),
                _ => char::from_u32(unit),
            };
            let mut utf8 = [0; 5];
            let length = letter.map_or(0, |letter| letter.encode_utf8(&mut utf8).len() as u64);
            self.bytes = self.bytes - 6 + length;
            self.most_bytes = self.most_bytes - 6 + length;
            // The letters among its digits, and its `u`, were no words.
            self.words -= words(&bytes[at..at + 6]);
            self.add_letters(&utf8);
        }
    }
}

/// How many bytes, together with those that follow them, are of a kind. At most 255 of them are looked at.
fn count(bytes: &[u8], following: &[u8], is: impl Fn(u8, u8) -> bool) -> u8 {
    bytes.iter().zip(following).map(|(byte, next)| u8::from(is(*byte, *next))).sum()
}

/// How many bytes are ASCII letters or spaces.
fn words(bytes: &[u8]) -> u64 {
    let count = |chunk: &[u8]| -> u8 {
        chunk.iter().map(|byte| u8::from((byte | 0x20).wrapping_sub(b'a') < 26 || *byte == b' ')).sum()
    };
    bytes.chunks(CHUNK).map(|chunk| u64::from(count(chunk))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn measured(text: &str) -> TextMeasure {
        let mut measure = TextMeasure::default();
        measure.add(text);
        measure
    }

    /// As a client writes it that keeps to ASCII.
    fn escaped(text: &str) -> String {
        let mut units = [0; 2];
        let escape = |letter: char| match letter.is_ascii() {
            true => letter.to_string(),
            false => letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        text.chars().map(escape).collect()
    }

    /// Written with escapes or without, a text is the same.
    fn check_escaped(text: &str) {
        let plain = measured(text);
        assert_eq!(TextMeasure { written: plain.written, ..measured(&escaped(text)) }, plain, "{text}");
    }

    #[test]
    fn scripts_are_told_apart_however_they_are_written() {
        let check = |text: &str, script: Script| {
            let text = text.repeat(3);
            assert_eq!(measured(&text).script(), script, "{text}");
            check_escaped(&text);
        };
        check("The tide is out, and the boats lie on the sand until evening. ", Script::Latin);
        check("Le garçon mange des pommes sur la plage et regarde longtemps la mer. ", Script::Latin);
        check(r"fn add(a: u64, b: u64) -> u64 {\n    a.checked_add(b).unwrap_or(0)\n}\n", Script::Code);
        check(r#"{\"id\": 1734, \"price\": 12.50, \"tags\": [\"a\", \"b\"]}"#, Script::Code);
        check("Tôi không biết tại sao nước biển lại mặn như vậy. ", Script::Mixed);
        check("let tide = read(); // 读取潮汐 ", Script::Mixed);
        check("Вода ушла, и лодки лежат на песке до самого вечера. ", Script::TwoByte);
        check("Η παλίρροια υποχώρησε και οι βάρκες μένουν στην άμμο. ", Script::TwoByte);
        check("潮水退了，小船一直躺在沙滩上，直到傍晚。", Script::Cjk);
        check("潮が引いて、舟は夕方まで砂の上にある。", Script::Cjk);
        check("썰물이 빠지고 배들은 저녁까지 모래 위에 있다. ", Script::Cjk);
        check("ज्वार उतर गया है और नावें शाम तक रेत पर पड़ी हैं। ", Script::Other);
    }

    #[test]
    fn a_backslash_before_a_u_is_not_always_an_escape() {
        // A path, and an escaped backslash before a real escape.
        assert_eq!(measured(r"C:\\users\\u0434").bytes, 16);
        assert_eq!(measured(r"\\\u0434").bytes, 4);
        assert_eq!(measured(r"\u00").bytes, 4);
    }

    #[test]
    fn the_most_bytes_hold_for_letters_that_grow() {
        let check = |letter: char, normal: u64| {
            let most = measured(&format!("{letter} ")).most_bytes;
            assert!(most > normal, "{letter}: {most} bytes, of {normal} and a space");
        };
        // Letters that grow most, with their bytes in form KC (Unicode 14).
        for (letter, normal) in [
            ('¼', 5),
            ('ŉ', 3),
            ('΅', 5),
            ('և', 4),
            ('ٵ', 4),
            ('ำ', 6),
            ('ཷ', 9),
            ('⁗', 12),
            ('ゟ', 6),
            ('㌖', 18),
            ('㋿', 6),
            ('ﬃ', 3),
            ('\u{FB2C}', 6),
            ('ﷺ', 33),
            ('\u{1D160}', 12),
        ] {
            check(letter, normal);
        }
        assert_eq!(measured("潮水退了 ").most_bytes, 13, "most Chinese stays as it is");
        for text in ["Вода ушла ", "Η παλίρροια ", "הים נסוג ", "썰물이 ", "plain ASCII"] {
            assert_eq!(measured(text).most_bytes, text.len() as u64, "{text}");
        }
    }

    #[test]
    fn every_letter_is_measured_alike_with_and_without_escapes() {
        for letter in (0x80..=0x0002_FFFF).filter_map(char::from_u32) {
            let text = format!("{letter} ");
            check_escaped(&text);
        }
    }

    proptest! {
        #[test]
        fn counts_do_not_depend_on_where_a_text_is_cut(pieces in prop::collection::vec("[ -~潮дเﷺ🌊]{0,300}", 0..6)) {
            let mut cut = TextMeasure::default();
            let pieces: Vec<String> = pieces.iter().map(|piece| format!("{} ", piece.replace('\\', ""))).collect();
            pieces.iter().for_each(|piece| cut.add(piece));
            let whole = pieces.concat();
            prop_assert_eq!(cut, measured(&whole));
            prop_assert_eq!(cut.bytes, whole.len() as u64);
            let foreign: usize = whole.chars().filter(|letter| !letter.is_ascii()).map(char::len_utf8).sum();
            prop_assert_eq!(cut.two_byte + cut.cjk + cut.other, foreign as u64);
        }
    }
}

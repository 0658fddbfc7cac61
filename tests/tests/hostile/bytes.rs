//! Bytes that were changed.

use crate::dice::Dice;

/// Numbers at the ends of what somebody can hold.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1e131071",
    "1e131072",
    "-1e131071",
    "1e-16383",
    "1e-16384",
    "0e131072",
    "0e-16384",
    "0e2147483647",
    "1e99999999999999999999",
    "1E+3",
    "01",
    ".5",
    "5.",
    "1e",
    "+1",
    "0x10",
    "NaN",
    "Infinity",
    "1_000",
    "9223372036854775808",
    "0.001",
    "0.00099999999999999999999",
    "86400.000000000000000000001",
    "1000000.0",
    "1000001",
];

/// What a text may be broken with.
const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"\\ud83d\\ude00",
    b"\\u0024from",
    b"\\u006eame",
    b"\\/",
    b"\\x41",
    b"\\U0041",
    b"null",
    b"true",
    b"TRUE",
    b"\x00",
    b"\x01",
    b"\x1b[31m",
    b"\x7f",
    b"\xc2\x9b",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    b"\xc2\xa0",
    b"\xe3\x80\x80",
    b" ",
    b"\n",
    b"\r\n",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"/**/",
    b"//\n",
    b"'",
    b"\"$from\":\"01\",",
    b"\"$literal\":1,",
    b"\"pivot\":true,",
    b"\"after\":[],",
    b"\"action\":\"http://a\",",
    b"\"name\":\"01\",",
    b"\"Host\":\"a\",",
    b"\"a\":1,",
    b"{}",
    b"[]",
];

impl Dice {
    /// A text with one to four changes.
    pub(crate) fn mutated(&mut self, text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        for _ in 0..=self.below(3) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(6)).min(bytes.len());
        match self.below(16) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.below(128) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            4 => bytes.truncate(at),
            5 | 10 | 11 => self.swap_a_number(bytes),
            6 | 12 | 13 => self.repeat_a_key(bytes),
            7 | 14 => escape(bytes, at),
            8 if self.below(8) == 0 => {
                let depth = [3, 64, 65, 66, 2_000, 20_000][self.below(6)];
                let (open, close) = if self.below(2) == 0 { ("[", "]") } else { ("{\"a\":", "}") };
                let core = ["", "1"][self.below(2)];
                let nest = format!("{}{core}{}", open.repeat(depth), close.repeat(depth));
                bytes.splice(at..end, nest.into_bytes());
            }
            9 => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(at..end, piece.iter().copied());
            }
            _ => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }

    /// One of the numbers in the text becomes another one.
    fn swap_a_number(&mut self, bytes: &mut Vec<u8>) {
        let starts: Vec<usize> = (0..bytes.len())
            .filter(|&at| bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric()))
            .collect();
        let number = self.of(NUMBERS).as_bytes();
        if starts.is_empty() {
            return;
        }
        let start = starts[self.below(starts.len())];
        let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        bytes.splice(start..start + length, number.iter().copied());
    }

    /// Some key comes once more, with another value: the last one counts.
    fn repeat_a_key(&mut self, bytes: &mut Vec<u8>) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let keys: Vec<String> =
            text.split('"').skip(1).step_by(2).filter(|key| key.len() < 30).map(str::to_owned).collect();
        let opens: Vec<usize> = text.match_indices(['{', ',']).map(|(at, _)| at).collect();
        if keys.is_empty() || opens.is_empty() {
            return;
        }
        let key = &keys[self.below(keys.len())];
        let value =
            self.of(&["1", "null", "\"\"", "\"a\"", "[]", "{}", "\"http://a\"", "1e131071", "\"\\u0000\""]);
        let at = opens[self.below(opens.len())] + 1;
        let entry = format!("\"{key}\":{value},");
        bytes.splice(at..at, entry.into_bytes());
    }
}

/// The character there is written as an escape.
fn escape(bytes: &mut Vec<u8>, at: usize) {
    if let Some(&byte) = bytes.get(at)
        && byte.is_ascii_alphanumeric()
    {
        bytes.splice(at..=at, format!("\\u{byte:04X}").into_bytes());
    }
}

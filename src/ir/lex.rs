//! Splits the text form of a function into tokens.
//!
//! Takes any text; leaves tokens with their byte offsets, or an error for a character that no token
//! starts with. Blanks and `// comments` separate tokens and are dropped.
//!
//! ```text
//! name    := letter (letter | digit | '_' | '.' before one of these)*
//! number  := digit+ ['.' digit+] ['e' ['+' | '-'] digit+]
//! sign    := { } ( ) [ ] , : = == != < <= + - * / % ..
//! ```
//! So `0..4` is a number, a range sign and a number, and `qx.b..W` has the name `qx.b`.

use crate::{Error, Kind, Result};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tok {
    Name,
    Number,
    Sign,
    End,
}

/// A token: a piece of the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub tok: Tok,
    pub text: &'a str,
    /// Byte offset of its first character.
    pub at: usize,
}

/// Signs, longer ones before their beginnings.
const SIGNS: [&str; 19] = ["..", "==", "!=", "<=", "{", "}", "(", ")", "[", "]", ",", ":", "=", "<", "+", "-", "*", "/", "%"];

/// An error at a byte offset, which is shown as line and column (both from 1, columns in characters).
pub(super) fn error_at(text: &str, at: usize, message: impl std::fmt::Display) -> Error {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before[before.rfind('\n').map_or(0, |i| i + 1)..].chars().count() + 1;
    Error::new(Kind::Parse, format!("{line}:{column}: {message}"))
}

/// The tokens of a text, with an `End` token last.
pub(super) fn lex(text: &str) -> Result<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (tok, len) = if c.is_ascii_alphabetic() {
            (Tok::Name, name_len(rest))
        } else if c.is_ascii_digit() {
            (Tok::Number, number_len(rest))
        } else if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            (Tok::Sign, sign.len())
        } else {
            return Err(error_at(text, at, format!("found {c:?}, which starts no name, number or sign")));
        };
        tokens.push(Token { tok, text: &rest[..len], at });
        at += len;
    }
    tokens.push(Token { tok: Tok::End, text: "", at: text.len() });
    Ok(tokens)
}

/// Whether a text is one name.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && name_len(text) == text.len()
}

fn name_len(text: &str) -> usize {
    let b = text.as_bytes();
    let inner = |i: usize| b.get(i).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_');
    let mut len = 1;
    while inner(len) || (b.get(len) == Some(&b'.') && inner(len + 1)) {
        len += 1;
    }
    len
}

fn number_len(text: &str) -> usize {
    let b = text.as_bytes();
    let digits = |mut i: usize| {
        while b.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        i
    };
    let mut len = digits(0);
    if b.get(len) == Some(&b'.') && digits(len + 1) > len + 1 {
        len = digits(len + 1);
    }
    if b.get(len) == Some(&b'e') {
        let sign = usize::from(matches!(b.get(len + 1), Some(b'+' | b'-')));
        if digits(len + 1 + sign) > len + 1 + sign {
            len = digits(len + 1 + sign);
        }
    }
    len
}

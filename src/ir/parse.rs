//! Reads the text form of a function back.
//!
//! Takes any text and never panics; leaves a [`Func`] equal to the one that printed it, or an error
//! of [`Kind::Parse`](crate::Kind::Parse) with line and column, what was found there and what was expected. It checks the
//! grammar (`docs/ir.md`) only: [`verify`](super::verify()) checks the rest. Integers that do not fit
//! 64 bits and nesting deeper than 100 are errors.
//!
//! A name with an index is a register if one of that name is declared, a buffer otherwise; in an
//! index, a name is a symbol if declared as one, a loop variable otherwise.
//!
//! ```
//! use polyphase::ir::parse;
//! let text = "func halve f32 stage naive {
//!   symbols L
//!   buffer x: input f32[L]
//!   buffer y: output f32[L]
//!   run {
//!     for i in 0..L {
//!       y[i] = 0.5 * x[i]
//!     }
//!   }
//! }
//! ";
//! assert_eq!(parse(text).unwrap().to_string(), text);
//! let e = parse("func halve f32 stage nave {}").unwrap_err();
//! assert!(e.message.starts_with("1:22: found `nave`, expected a stage: naive, form, "));
//! ```

mod index;
mod stmt;
mod value;

use super::lex::{Tok, Token, error_at, lex};
use super::*;
use crate::{Error, Result};
use std::collections::HashSet;

/// Words that name nothing, because a statement, bound or value can start with them or be followed by them.
pub(super) const RESERVED: [&str; 15] =
    ["for", "par", "unroll", "when", "tile", "stream", "and", "in", "step", "clip", "true", "inf", "nan", "max", "min"];

/// How deep statements, values and indices may nest.
const MAX_DEPTH: usize = 100;

/// Reads one function.
///
/// # Errors
/// [`Kind::Parse`](crate::Kind::Parse) if the text is not a function in the text form; the message begins with `line:column:`.
pub fn parse(text: &str) -> Result<Func> {
    let mut p = Parser { text, tokens: lex(text)?, at: 0, depth: 0, symbols: HashSet::new(), regs: HashSet::new() };
    let func = p.func()?;
    match p.peek().tok {
        Tok::End => Ok(func),
        _ => Err(p.unexpected("the end of the text")),
    }
}

impl std::str::FromStr for Func {
    type Err = Error;
    fn from_str(text: &str) -> Result<Func> {
        parse(text)
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    /// Index of the next token; the `End` token is never passed.
    at: usize,
    depth: usize,
    symbols: HashSet<&'a str>,
    regs: HashSet<&'a str>,
}

/// Tokens.
impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at]
    }
    fn peek_is(&self, text: &str) -> bool {
        self.peek().text == text
    }
    /// Whether the token after the next one is `text`.
    fn second_is(&self, text: &str) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|t| t.text == text)
    }
    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if token.tok != Tok::End {
            self.at += 1;
        }
        token
    }
    /// Takes the next token if it is `text`.
    fn eat(&mut self, text: &str) -> bool {
        let is = self.peek_is(text);
        if is {
            self.next();
        }
        is
    }
    fn expect(&mut self, text: &str) -> Result<()> {
        if self.eat(text) { Ok(()) } else { Err(self.unexpected(format_args!("`{text}`"))) }
    }
    fn error(&self, at: usize, message: impl fmt::Display) -> Error {
        error_at(self.text, at, message)
    }
    fn unexpected(&self, expected: impl fmt::Display) -> Error {
        let found = self.peek();
        match found.tok {
            Tok::End => self.error(found.at, format_args!("found the end of the text, expected {expected}")),
            _ => self.error(found.at, format_args!("found `{}`, expected {expected}", found.text)),
        }
    }
    /// One level deeper, if that is still allowed.
    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        Ok(())
    }
    fn too_deep(&self) -> Error {
        self.error(self.peek().at, format_args!("nesting is deeper than {MAX_DEPTH}"))
    }
}

/// Words and numbers.
impl<'a> Parser<'a> {
    fn name(&mut self, what: &str) -> Result<&'a str> {
        let t = self.peek();
        if t.tok != Tok::Name {
            return Err(self.unexpected(what));
        }
        if RESERVED.contains(&t.text) {
            return Err(self.unexpected(format_args!("{what} (the word is reserved)")));
        }
        self.next();
        Ok(t.text)
    }
    /// A word out of a fixed list.
    fn word<T: Copy>(&mut self, what: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T> {
        match all.iter().find(|&&v| self.peek_is(name(v))) {
            Some(&v) => {
                self.next();
                Ok(v)
            }
            None => {
                let names: Vec<_> = all.iter().map(|&v| name(v)).collect();
                Err(self.unexpected(format_args!("{what}: {}", names.join(", "))))
            }
        }
    }
    /// The name of a function or tile: letters, digits, `_`, `.` and `-` without a blank.
    fn label(&mut self, what: &str) -> Result<&'a str> {
        let start = self.peek().at;
        let mut end = start;
        while self.peek().at == end && (matches!(self.peek().tok, Tok::Name | Tok::Number) || self.peek_is("-")) {
            end += self.next().text.len();
        }
        if start == end { Err(self.unexpected(what)) } else { Ok(&self.text[start..end]) }
    }
    /// An integer, with a sign or without.
    fn integer(&mut self) -> Result<i64> {
        let at = self.peek().at;
        let negative = self.eat("-");
        let v = self.unsigned()?;
        i64::try_from(if negative { -v } else { v }).map_err(|_| self.error(at, format_args!("found {v}, which does not fit 64 bits")))
    }
    /// Digits; at most 2^63.
    fn unsigned(&mut self) -> Result<i128> {
        let t = self.peek();
        if t.tok != Tok::Number || !t.text.bytes().all(|c| c.is_ascii_digit()) {
            return Err(self.unexpected("an integer"));
        }
        match t.text.parse() {
            Ok(v) if v <= 1 << 63 => {
                self.next();
                Ok(v)
            }
            _ => Err(self.error(t.at, format_args!("found {}, which does not fit 64 bits", t.text))),
        }
    }
    fn count(&mut self) -> Result<usize> {
        let t = self.peek();
        let v = self.unsigned()?;
        usize::try_from(v).map_err(|_| self.error(t.at, format_args!("found {}, which is too large", t.text)))
    }
    /// Items between `open` and `close`, separated by commas; there may be none.
    fn list<T>(&mut self, open: &str, close: &str, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect(open)?;
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(",") {
                return Err(self.unexpected(format_args!("`,` or `{close}`")));
            }
        }
    }
}

/// The function and its declarations.
impl<'a> Parser<'a> {
    fn func(&mut self) -> Result<Func> {
        self.expect("func")?;
        let name = self.label("the name of the function")?.into();
        let elem = self.elem()?;
        self.expect("stage")?;
        let stage = self.word("a stage", &Stage::ALL, Stage::name)?;
        self.expect("{")?;
        let mut func = Func {
            name,
            stage,
            elem,
            symbols: Vec::new(),
            counts: Vec::new(),
            buffers: Vec::new(),
            tables: Vec::new(),
            regs: Vec::new(),
            prepare: Vec::new(),
            run: Vec::new(),
        };
        self.declarations(&mut func)?;
        if self.eat("prepare") {
            func.prepare = self.block()?;
        }
        if !self.eat("run") {
            return Err(self.unexpected("`symbols`, `count`, `buffer`, `table`, `reg`, `prepare` or `run`"));
        }
        func.run = self.block()?;
        self.expect("}")?;
        Ok(func)
    }

    fn declarations(&mut self, func: &mut Func) -> Result<()> {
        loop {
            if self.eat("symbols") {
                loop {
                    let name = self.name("the name of a symbol")?;
                    self.symbols.insert(name);
                    func.symbols.push(name.into());
                    if !self.eat(",") {
                        break;
                    }
                }
            } else if self.eat("count") {
                func.counts.push(self.counted()?);
            } else if self.eat("buffer") {
                func.buffers.push(self.buffer()?);
            } else if self.eat("table") {
                let name = self.name("the name of a table")?.into();
                self.expect("=")?;
                func.tables.push(Table { name, values: self.list("[", "]", Self::integer)? });
            } else if self.eat("reg") {
                func.regs.push(self.reg(func.elem)?);
            } else {
                return Ok(());
            }
        }
    }

    /// `n = even(W + 1, 5, 13)`, `n = whole(a, 13, 6)`, `n = units(W, 2)` or `n = a*b`.
    fn counted(&mut self) -> Result<Count> {
        let name = self.name("the name of a count")?;
        self.expect("=")?;
        let first = self.name("`even`, `whole`, `units` or a symbol")?;
        let of = if ["even", "whole", "units"].contains(&first) && self.eat("(") {
            let extent = self.affine()?;
            self.expect(",")?;
            let unit = self.integer()?;
            let mut last = || self.expect(",").and_then(|()| self.integer());
            let of = match first {
                "even" => CountOf::Even { extent, unit, most: last()? },
                "whole" => CountOf::Whole { extent, unit, rest: last()? },
                _ => CountOf::Units { extent, unit },
            };
            self.expect(")")?;
            of
        } else {
            self.expect("*")?;
            CountOf::Product(first.into(), self.name("a symbol")?.into())
        };
        self.symbols.insert(name);
        Ok(Count { name: name.into(), of })
    }

    fn elem(&mut self) -> Result<Elem> {
        self.word("an element type", &[Elem::F32, Elem::F64], Elem::name)
    }

    fn buffer(&mut self) -> Result<Buffer> {
        let name = self.name("the name of a buffer")?.into();
        self.expect(":")?;
        let kind = self.word("a kind of buffer", &BufferKind::ALL, BufferKind::name)?;
        let elem = self.elem()?;
        let dims = self.list("[", "]", Self::affine)?;
        let mut order: Vec<usize> = (0..dims.len()).collect();
        if self.eat("order") {
            order.clear();
            while self.peek().tok == Tok::Number {
                order.push(self.count()?);
            }
        }
        Ok(Buffer { name, kind, elem, dims, order })
    }

    fn reg(&mut self, elem: Elem) -> Result<Reg> {
        let name = self.name("the name of a register")?;
        self.regs.insert(name);
        self.expect(":")?;
        let lanes = self.reg_type(elem)?;
        let dims = if self.peek_is("[") { self.list("[", "]", Self::count)? } else { Vec::new() };
        Ok(Reg { name: name.into(), lanes, dims })
    }

    /// The lanes of a type such as `f32` or `f32x16`.
    fn reg_type(&mut self, elem: Elem) -> Result<usize> {
        let text = self.peek().text;
        let lanes = match text.strip_prefix(elem.name()) {
            Some("") => Some(1),
            Some(rest) => rest.strip_prefix('x').filter(|d| d.bytes().all(|c| c.is_ascii_digit())).and_then(|d| d.parse().ok()),
            None => None,
        };
        match lanes {
            Some(lanes) => {
                self.next();
                Ok(lanes)
            }
            None => Err(self.unexpected(format_args!("the function's element type with its lanes, such as `{0}` or `{0}x4`", elem.name()))),
        }
    }
}

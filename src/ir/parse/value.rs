//! Values and accesses.
//!
//! ```text
//! value   := product (('+' | '-') product)*
//! product := primary (('*' | '/') primary)*
//! primary := ['-'] (number | 'inf') | 'nan' | '(' value ')' | register ['[' indices ']'] | access
//!          | fma(a, b, c) | max(a, b) | min(a, b) | neg(a) | abs(a) | pow2(a) | tanh(a) | sigmoid(a)
//!          | select(a cmp b, then, else)                       cmp is < <= == !=
//! access  := buffer '[' indices ']'                              one of the indices may be followed by lanes
//! lanes   := ':' count ['step' integer] ['clip' bounds]
//! ```

use super::*;

/// A value with the height of its tree, which is bounded like nesting.
type Tall = (Value, usize);

impl Parser<'_> {
    pub(super) fn value(&mut self) -> Result<Value> {
        Ok(self.sum()?.0)
    }

    fn sum(&mut self) -> Result<Tall> {
        self.deeper()?;
        let v = self.chain(Self::product, &[BinOp::Add, BinOp::Sub])?;
        self.depth -= 1;
        Ok(v)
    }

    fn product(&mut self) -> Result<Tall> {
        self.chain(Self::primary, &[BinOp::Mul, BinOp::Div])
    }

    /// Operands joined by some of `ops`, from the left.
    fn chain(&mut self, operand: fn(&mut Self) -> Result<Tall>, ops: &[BinOp]) -> Result<Tall> {
        let (mut left, mut height) = operand(self)?;
        while let Some(&op) = ops.iter().find(|op| self.peek_is(op.name())) {
            self.next();
            let (right, h) = operand(self)?;
            height = self.taller(height.max(h))?;
            left = Value::bin(op, left, right);
        }
        Ok((left, height))
    }

    fn taller(&self, height: usize) -> Result<usize> {
        if height >= MAX_DEPTH { Err(self.too_deep()) } else { Ok(height + 1) }
    }

    fn primary(&mut self) -> Result<Tall> {
        if self.eat("(") {
            let v = self.sum()?;
            self.expect(")")?;
            return Ok(v);
        }
        let token = self.peek();
        if token.tok == Tok::Name && self.second_is("(") {
            return self.call();
        }
        if token.tok == Tok::Number || ["-", "inf", "nan"].contains(&token.text) {
            return Ok((Value::Const(self.constant()?), 0));
        }
        let name = self.name("a value: a number, a register, a buffer, a function or `(`")?;
        let v = if self.peek_is("[") && !self.regs.contains(name) {
            Value::Load(self.access(name)?)
        } else {
            Value::Reg(name.into(), self.entry()?)
        };
        Ok((v, 0))
    }

    fn constant(&mut self) -> Result<f64> {
        if self.eat("nan") {
            return Ok(f64::NAN);
        }
        let negative = self.eat("-");
        let t = self.peek();
        let v = if self.eat("inf") {
            f64::INFINITY
        } else if t.tok == Tok::Number {
            self.next();
            match t.text.parse::<f64>() {
                Ok(v) if v.is_finite() => v,
                _ => return Err(self.error(t.at, format_args!("found {}, which does not fit 64 bits; infinity is `inf`", t.text))),
            }
        } else {
            return Err(self.unexpected("a number or `inf` (the negative of a value is `neg(…)`)"));
        };
        Ok(if negative { -v } else { v })
    }

    fn call(&mut self) -> Result<Tall> {
        let token = self.next();
        if token.text == "select" {
            return self.select();
        }
        let mut height = 0;
        let args = self.list("(", ")", |p| {
            let (v, h) = p.sum()?;
            height = height.max(h);
            Ok(v)
        })?;
        let height = self.taller(height)?;
        let wrong =
            |takes: usize, got: usize| Err(self.error(token.at, format_args!("found {got} operands of {}, expected {takes}", token.text)));
        let v = if token.text == "fma" {
            match <[Value; 3]>::try_from(args) {
                Ok(args) => Value::Fma(Box::new(args)),
                Err(args) => return wrong(3, args.len()),
            }
        } else if let Some(&op) = [BinOp::Max, BinOp::Min].iter().find(|op| op.name() == token.text) {
            match <[Value; 2]>::try_from(args) {
                Ok(args) => Value::Bin(op, Box::new(args)),
                Err(args) => return wrong(2, args.len()),
            }
        } else if let Some(&op) = UnOp::ALL.iter().find(|op| op.name() == token.text) {
            match <[Value; 1]>::try_from(args) {
                Ok([arg]) => Value::un(op, arg),
                Err(args) => return wrong(1, args.len()),
            }
        } else {
            let names: Vec<_> = UnOp::ALL.iter().map(|op| op.name()).collect();
            let known = names.join(", ");
            return Err(self.error(token.at, format_args!("found `{}(`, expected fma, select, max, min, {known}", token.text)));
        };
        Ok((v, height))
    }

    fn select(&mut self) -> Result<Tall> {
        self.expect("(")?;
        let (a, ha) = self.sum()?;
        let cmp = self.word("a comparison", &CmpOp::ALL, CmpOp::name)?;
        let (b, hb) = self.sum()?;
        self.expect(",")?;
        let (t, ht) = self.sum()?;
        self.expect(",")?;
        let (e, he) = self.sum()?;
        self.expect(")")?;
        Ok((Value::select(cmp, a, b, t, e), self.taller(ha.max(hb).max(ht).max(he))?))
    }

    /// The index of a register array; nothing for a single register.
    pub(super) fn entry(&mut self) -> Result<Vec<Affine>> {
        if self.peek_is("[") { self.list("[", "]", Self::affine) } else { Ok(Vec::new()) }
    }

    /// The rest of an access, after the buffer's name.
    pub(super) fn access(&mut self, buffer: &str) -> Result<Access> {
        let mut lanes = None;
        let mut dim = 0;
        let index = self.list("[", "]", |p| {
            let e = p.affine()?;
            if p.peek_is(":") {
                if lanes.is_some() {
                    return Err(p.unexpected("`,` or `]`: the lanes of an access lie along one dimension"));
                }
                lanes = Some(p.lanes(dim)?);
            }
            dim += 1;
            Ok(e)
        })?;
        Ok(Access { buffer: buffer.into(), index, lanes })
    }
}

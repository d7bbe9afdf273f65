//! Indices, bounds and conditions. Sums are built with checked arithmetic: an overflow is an error.
//!
//! ```text
//! affine  := ['-'] term (('+' | '-') term)*
//! term    := integer ['*' factor ['*' factor]] | factor ['*' factor] ['/' integer]    of two factors one is a symbol, the other a variable
//! factor  := name | table '[' variable ']' | '(' affine ')'
//! bounds  := max(lo) '..' min(hi)                    `max` and `min` around several bounds only
//! cond    := affine '<=' affine '<' affine | factor '%' integer '==' '0'
//! ```

use super::*;

impl Parser<'_> {
    pub(super) fn affine(&mut self) -> Result<Affine> {
        let mut sum = Affine::default();
        let mut negative = self.eat("-");
        loop {
            self.term(&mut sum, negative)?;
            negative = match self.peek().text {
                "+" => false,
                "-" => true,
                _ => return Ok(sum),
            };
            self.next();
        }
    }

    /// Adds the next term to `sum`.
    fn term(&mut self, sum: &mut Affine, negative: bool) -> Result<()> {
        let at = self.peek().at;
        let sign = if negative { -1 } else { 1 };
        let added = if self.peek().tok == Tok::Number {
            let coef = sign * self.unsigned()?;
            if self.eat("*") {
                let factor = self.scaled()?;
                if self.peek_is("/") {
                    return Err(self.error(at, "a product is divided; write `(2*q) / 3` or `2*(q / 3)`"));
                }
                add(sum, &factor, coef)
            } else {
                add(sum, &1.into(), coef)
            }
        } else {
            let mut factor = self.scaled()?;
            if self.eat("/") {
                factor = factor.floor_div(self.divisor()?);
            }
            add(sum, &factor, sign)
        };
        added.ok_or_else(|| self.error(at, "the sum with this term does not fit 64 bits"))
    }

    /// A factor, or a symbol times a variable.
    fn scaled(&mut self) -> Result<Affine> {
        let at = self.peek().at;
        let first = self.factor()?;
        if !self.eat("*") {
            return Ok(first);
        }
        let second = self.factor()?;
        let alone = |a: &Affine| match a.terms.iter().next() {
            Some((atom, 1)) if a.terms.len() == 1 && a.offset == 0 => Some(*atom),
            _ => None,
        };
        match (alone(&first), alone(&second)) {
            (Some(Atom::Sym(s)), Some(Atom::Var(v))) | (Some(Atom::Var(v)), Some(Atom::Sym(s))) => Ok(Affine::scaled(s, v)),
            _ => Err(self.error(at, "a product of two factors; one is a symbol, the other a variable")),
        }
    }

    fn factor(&mut self) -> Result<Affine> {
        if self.eat("(") {
            self.deeper()?;
            let inner = self.affine()?;
            self.depth -= 1;
            self.expect(")")?;
            return Ok(inner);
        }
        let name = self.name("an index: an integer, a variable, a symbol, a table entry or `(`")?;
        if self.eat("[") {
            let var = self.name("a loop variable")?;
            self.expect("]")?;
            return Ok(Affine::table(name, var));
        }
        Ok(if self.symbols.contains(name) { Affine::sym(name) } else { Affine::var(name) })
    }

    fn divisor(&mut self) -> Result<i64> {
        let at = self.peek().at;
        match self.integer()? {
            v if v >= 1 => Ok(v),
            v => Err(self.error(at, format_args!("found the divisor {v}, expected at least 1"))),
        }
    }

    /// One bound, or several within `max(…)` or `min(…)`.
    fn bound(&mut self, of: &str) -> Result<Vec<Affine>> {
        if self.eat(of) {
            return self.list("(", ")", Self::affine);
        }
        Ok(vec![self.affine()?])
    }

    pub(super) fn bounds(&mut self) -> Result<(Vec<Affine>, Vec<Affine>)> {
        let lo = self.bound("max")?;
        self.expect("..")?;
        Ok((lo, self.bound("min")?))
    }

    /// The step after `step`, 1 without it.
    pub(super) fn step(&mut self) -> Result<i64> {
        if self.eat("step") { self.integer() } else { Ok(1) }
    }

    /// The step of a loop, and the symbol that it is multiplied by.
    pub(super) fn loop_step(&mut self) -> Result<(i64, Option<Name>)> {
        if !self.eat("step") {
            return Ok((1, None));
        }
        if self.peek().tok == Tok::Name {
            return Ok((1, Some(self.name("a symbol")?.into())));
        }
        let step = self.integer()?;
        let times = if self.eat("*") { Some(self.name("a symbol")?.into()) } else { None };
        Ok((step, times))
    }

    pub(super) fn cond(&mut self) -> Result<Cond> {
        let start = self.at;
        if self.peek().tok != Tok::Number && !self.peek_is("-") {
            let e = self.factor()?;
            if self.eat("%") {
                let m = self.integer()?;
                self.expect("==")?;
                self.expect("0")?;
                return Ok(Cond::Multiple { e, m });
            }
            self.at = start;
        }
        let lo = self.affine()?;
        if self.peek_is("%") {
            return Err(self.unexpected("`<=` (a sum before `%` needs parentheses)"));
        }
        self.expect("<=")?;
        let e = self.affine()?;
        self.expect("<")?;
        Ok(Cond::Range { lo, e, hi: self.affine()? })
    }

    /// The lanes of an access after its index of dimension `dim`.
    pub(super) fn lanes(&mut self, dim: usize) -> Result<Lanes> {
        self.expect(":")?;
        let count = self.count()?;
        let step = self.step()?;
        let clip = if self.eat("clip") {
            let (lo, hi) = self.bounds()?;
            Some(Clip { lo, hi })
        } else {
            None
        };
        Ok(Lanes { dim, count, step, clip })
    }
}

/// `sum += e * coef`, unless a coefficient leaves 64 bits.
fn add(sum: &mut Affine, e: &Affine, coef: i128) -> Option<()> {
    let scaled = |to: i64, c: i64| i64::try_from(i128::from(c).checked_mul(coef)?.checked_add(to.into())?).ok();
    sum.offset = scaled(sum.offset, e.offset)?;
    for (atom, &c) in &e.terms {
        match scaled(sum.coef(atom), c)? {
            0 => {
                sum.terms.remove(atom);
            }
            c => {
                sum.terms.insert(*atom, c);
            }
        }
    }
    Some(())
}

//! Statements.
//!
//! ```text
//! block   := '{' stmt* '}'
//! stmt    := ['par' | 'unroll'] 'for' head (',' head)* block     several heads are nested loops of that kind
//!          | 'when' ('true' | cond ('and' cond)*) block
//!          | 'tile' label ['asks' name '[' affine '..' affine, … ']'] block
//!          | register ['[' indices ']'] '=' value
//!          | ['stream'] access '=' (value | 'interleave' '(' value, … ')')
//! head    := variable 'in' bounds ['step' (integer ['*' symbol] | symbol)]
//! ```

use super::*;

impl Parser<'_> {
    pub(super) fn block(&mut self) -> Result<Vec<Stmt>> {
        self.expect("{")?;
        self.deeper()?;
        let mut body = Vec::new();
        while !self.eat("}") {
            body.push(self.stmt()?);
        }
        self.depth -= 1;
        Ok(body)
    }

    fn stmt(&mut self) -> Result<Stmt> {
        match self.peek().text {
            "for" => self.nest(LoopKind::Seq),
            "par" => {
                self.next();
                self.nest(LoopKind::Par)
            }
            "unroll" => {
                self.next();
                self.nest(LoopKind::Unroll)
            }
            "when" => {
                self.next();
                let conds = self.conds()?;
                Ok(Stmt::When { conds, body: self.block()? })
            }
            "tile" => {
                self.next();
                let name = self.label("the name of a tile")?.into();
                let asks = if self.eat("asks") { Some(self.ask()?) } else { None };
                Ok(Stmt::Tile { name, asks, body: self.block()? })
            }
            "stream" => {
                self.next();
                let name = self.name("the name of a buffer")?;
                self.store(name, true)
            }
            _ => {
                let name = self.name("a statement or `}`")?;
                if self.peek_is("[") && !self.regs.contains(name) {
                    return self.store(name, false);
                }
                let index = self.entry()?;
                self.expect("=")?;
                Ok(Stmt::Set { reg: name.into(), index, value: self.value()? })
            }
        }
    }

    fn ask(&mut self) -> Result<Ask> {
        let buffer = self.name("the name of a buffer")?.into();
        let ranges = self.list("[", "]", |p| {
            let lo = p.affine()?;
            p.expect("..")?;
            Ok((lo, p.affine()?))
        })?;
        Ok(Ask { buffer, ranges })
    }

    fn nest(&mut self, kind: LoopKind) -> Result<Stmt> {
        self.expect("for")?;
        let outside = self.depth;
        let mut heads = Vec::new();
        loop {
            let var = self.name("a loop variable")?;
            self.expect("in")?;
            let (lo, hi) = self.bounds()?;
            let (step, times) = self.loop_step()?;
            heads.push(Loop { var: var.into(), lo, hi, step, times, kind, body: Vec::new() });
            if !self.eat(",") {
                break;
            }
            self.deeper()?;
        }
        let mut body = self.block()?;
        self.depth = outside;
        while let Some(head) = heads.pop() {
            body = vec![Stmt::For(Loop { body, ..head })];
        }
        match body.pop() {
            Some(nest) => Ok(nest),
            None => Err(self.unexpected("a loop")),
        }
    }

    fn conds(&mut self) -> Result<Vec<Cond>> {
        if self.eat("true") {
            return Ok(Vec::new());
        }
        let mut conds = vec![self.cond()?];
        while self.eat("and") {
            conds.push(self.cond()?);
        }
        Ok(conds)
    }

    fn store(&mut self, buffer: &str, stream: bool) -> Result<Stmt> {
        let to = self.access(buffer)?;
        self.expect("=")?;
        let parts = if self.peek_is("interleave") && self.second_is("(") {
            self.next();
            self.list("(", ")", Self::value)?
        } else {
            vec![self.value()?]
        };
        Ok(Stmt::Store { to, parts, stream })
    }
}

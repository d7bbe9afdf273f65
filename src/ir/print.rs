//! The text form of a function: what `dump-ir` shows and [`parse`](super::parse()) reads back.
//!
//! `Display` of [`Func`] writes everything there is; parsing it gives an equal function. Needs nothing
//! but the function (it need not verify); loops of one kind that are perfectly nested share a line. The
//! grammar is in `docs/ir.md`. The smaller types print as they do inside a function.
//!
//! ```
//! use polyphase::ir::{Affine, Value};
//! let q = Affine::var("q");
//! assert_eq!((q.clone() * 2 - 1).to_string(), "2*q - 1");
//! let v = Value::fma(Value::load("x", vec![q]), Value::Const(0.5), Value::reg("acc"));
//! assert_eq!(v.to_string(), "fma(x[q], 0.5, acc)");
//! ```

use super::*;
use fmt::{Display, Formatter, Write};

/// A line of nested loops is broken before it grows longer than this.
const WIDTH: usize = 120;

/// Writes `items` separated by `sep`.
fn list<T: Display>(f: &mut dyn Write, items: impl IntoIterator<Item = T>, sep: &str) -> fmt::Result {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            f.write_str(sep)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

/// Writes a single bound as it is, several as `max(…)` or `min(…)`.
fn bound(f: &mut dyn Write, of: &str, bounds: &[Affine]) -> fmt::Result {
    match bounds {
        [one] => write!(f, "{one}"),
        _ => {
            write!(f, "{of}(")?;
            list(f, bounds, ", ")?;
            f.write_char(')')
        }
    }
}

impl Stage {
    /// Every stage, in the order of lowering.
    pub const ALL: [Stage; 7] = [Stage::Naive, Stage::Form, Stage::Phases, Stage::Panel, Stage::Tile, Stage::Vector, Stage::Lowered];
    /// Its name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Naive => "naive",
            Stage::Form => "form",
            Stage::Phases => "phases",
            Stage::Panel => "panel",
            Stage::Tile => "tile",
            Stage::Vector => "vector",
            Stage::Lowered => "lowered",
        }
    }
}

impl BufferKind {
    /// Every kind, the caller's first.
    pub const ALL: [BufferKind; 6] =
        [BufferKind::Input, BufferKind::Weight, BufferKind::Bias, BufferKind::Output, BufferKind::Packed, BufferKind::Scratch];
    /// Its name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            BufferKind::Input => "input",
            BufferKind::Weight => "weight",
            BufferKind::Bias => "bias",
            BufferKind::Output => "output",
            BufferKind::Packed => "packed",
            BufferKind::Scratch => "scratch",
        }
    }
}

impl BinOp {
    /// Every operation on two values.
    pub const ALL: [BinOp; 6] = [BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Div, BinOp::Max, BinOp::Min];
    /// Its sign, or the name by which it is called.
    pub fn name(self) -> &'static str {
        match self {
            BinOp::Add => "+",
            BinOp::Sub => "-",
            BinOp::Mul => "*",
            BinOp::Div => "/",
            BinOp::Max => "max",
            BinOp::Min => "min",
        }
    }
    /// How tightly a sign binds; `None` if it is written as a call.
    fn precedence(self) -> Option<u8> {
        match self {
            BinOp::Add | BinOp::Sub => Some(1),
            BinOp::Mul | BinOp::Div => Some(2),
            BinOp::Max | BinOp::Min => None,
        }
    }
}

impl UnOp {
    /// Every operation on one value.
    pub const ALL: [UnOp; 5] = [UnOp::Neg, UnOp::Abs, UnOp::Pow2, UnOp::Tanh, UnOp::Sigmoid];
    /// The name by which it is called.
    pub fn name(self) -> &'static str {
        match self {
            UnOp::Neg => "neg",
            UnOp::Abs => "abs",
            UnOp::Pow2 => "pow2",
            UnOp::Tanh => "tanh",
            UnOp::Sigmoid => "sigmoid",
        }
    }
}

impl CmpOp {
    /// Every comparison.
    pub const ALL: [CmpOp; 4] = [CmpOp::Lt, CmpOp::Le, CmpOp::Eq, CmpOp::Ne];
    /// Its sign.
    pub fn name(self) -> &'static str {
        match self {
            CmpOp::Lt => "<",
            CmpOp::Le => "<=",
            CmpOp::Eq => "==",
            CmpOp::Ne => "!=",
        }
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Display for Atom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Sym(name) | Atom::Var(name) => write!(f, "{name}"),
            Atom::Table(table, var) => write!(f, "{table}[{var}]"),
            Atom::Scaled(symbol, var) => write!(f, "{symbol}*{var}"),
            Atom::Div(e, by) => write!(f, "{} / {by}", Factor(e)),
        }
    }
}

/// An expression where a single factor is due: in parentheses unless it is a name.
struct Factor<'a>(&'a Affine);

impl Display for Factor<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.terms.iter().next() {
            Some((a, 1)) if self.0.terms.len() == 1 && self.0.offset == 0 && !matches!(a, Atom::Div(..) | Atom::Scaled(..)) => {
                write!(f, "{a}")
            }
            _ => write!(f, "({})", self.0),
        }
    }
}

/// Terms with a positive coefficient come first, so that a sum seldom opens with a minus.
impl Display for Affine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (plus, minus): (Vec<_>, Vec<_>) = self.terms.iter().partition(|&(_, &c)| c >= 0);
        let offset_first = plus.is_empty() && self.offset > 0;
        let mut first = true;
        let mut sign = |f: &mut Formatter<'_>, negative: bool| match (std::mem::take(&mut first), negative) {
            (true, false) => Ok(()),
            (true, true) => f.write_char('-'),
            (false, false) => f.write_str(" + "),
            (false, true) => f.write_str(" - "),
        };
        if offset_first || (plus.is_empty() && minus.is_empty()) {
            sign(f, self.offset < 0)?;
            write!(f, "{}", self.offset.unsigned_abs())?;
        }
        for &(atom, coef) in plus.iter().chain(&minus) {
            sign(f, *coef < 0)?;
            match (coef.unsigned_abs(), atom) {
                (1, _) => write!(f, "{atom}")?,
                (c, Atom::Div(..)) => write!(f, "{c}*({atom})")?,
                (c, _) => write!(f, "{c}*{atom}")?,
            }
        }
        if !offset_first && self.offset != 0 && !self.terms.is_empty() {
            sign(f, self.offset < 0)?;
            write!(f, "{}", self.offset.unsigned_abs())?;
        }
        Ok(())
    }
}

impl Display for Cond {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Cond::Range { lo, e, hi } => write!(f, "{lo} <= {e} < {hi}"),
            Cond::Multiple { e, m } => write!(f, "{} % {m} == 0", Factor(e)),
        }
    }
}

impl Display for Lanes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " : {}", self.count)?;
        if self.step != 1 {
            write!(f, " step {}", self.step)?;
        }
        if let Some(clip) = &self.clip {
            f.write_str(" clip ")?;
            bound(f, "max", &clip.lo)?;
            f.write_str("..")?;
            bound(f, "min", &clip.hi)?;
        }
        Ok(())
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.buffer)?;
        for (d, e) in self.index.iter().enumerate() {
            write!(f, "{}{e}", if d > 0 { ", " } else { "" })?;
            if let Some(l) = self.lanes.as_ref().filter(|l| l.dim == d) {
                write!(f, "{l}")?;
            }
        }
        // Out of rank: the verifier rejects it, but a dump still has to show it.
        if let Some(l) = self.lanes.as_ref().filter(|l| l.dim >= self.index.len()) {
            write!(f, " dimension {}{l}", l.dim)?;
        }
        f.write_char(']')
    }
}

/// A register, or one entry of a register array.
struct Entry<'a>(&'a Name, &'a [Affine]);

impl Display for Entry<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        if self.1.is_empty() {
            return Ok(());
        }
        f.write_char('[')?;
        list(f, self.1, ", ")?;
        f.write_char(']')
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Value::Const(c) if c.is_finite() => write!(f, "{c:?}"),
            Value::Const(c) if c.is_nan() => f.write_str("nan"),
            Value::Const(c) => f.write_str(if *c > 0.0 { "inf" } else { "-inf" }),
            Value::Reg(name, index) => write!(f, "{}", Entry(name, index)),
            Value::Load(a) => write!(f, "{a}"),
            Value::Fma(v) => write!(f, "fma({}, {}, {})", v[0], v[1], v[2]),
            Value::Un(op, v) => write!(f, "{}({v})", op.name()),
            Value::Select(op, v) => write!(f, "select({} {} {}, {}, {})", v[0], op.name(), v[1], v[2], v[3]),
            Value::Bin(op, v) => match op.precedence() {
                None => write!(f, "{}({}, {})", op.name(), v[0], v[1]),
                Some(p) => {
                    operand(f, &v[0], p)?;
                    write!(f, " {} ", op.name())?;
                    operand(f, &v[1], p + 1)
                }
            },
        }
    }
}

/// Writes an operand, in parentheses if it binds less tightly than `least`.
fn operand(f: &mut Formatter<'_>, v: &Value, least: u8) -> fmt::Result {
    match v {
        Value::Bin(op, _) if op.precedence().is_some_and(|p| p < least) => write!(f, "({v})"),
        _ => write!(f, "{v}"),
    }
}

impl Display for Loop {
    /// The head without its body or kind: `q in 0..W step 2`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} in ", self.var)?;
        bound(f, "max", &self.lo)?;
        f.write_str("..")?;
        bound(f, "min", &self.hi)?;
        match &self.times {
            Some(symbol) if self.step == 1 => write!(f, " step {symbol}"),
            Some(symbol) => write!(f, " step {}*{symbol}", self.step),
            None if self.step != 1 => write!(f, " step {}", self.step),
            None => Ok(()),
        }
    }
}

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.of {
            CountOf::Even { extent, unit, most } => write!(f, "{} = even({extent}, {unit}, {most})", self.name),
            CountOf::Whole { extent, unit, rest } => write!(f, "{} = whole({extent}, {unit}, {rest})", self.name),
            CountOf::Units { extent, unit } => write!(f, "{} = units({extent}, {unit})", self.name),
            CountOf::Product(a, b) => write!(f, "{} = {a}*{b}", self.name),
        }
    }
}

impl Display for Stmt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        stmt(f, self, 0)
    }
}

fn stmt(f: &mut dyn Write, s: &Stmt, depth: usize) -> fmt::Result {
    let pad = 2 * depth;
    let body = match s {
        Stmt::Set { reg, index, value } => return writeln!(f, "{:pad$}{} = {value}", "", Entry(reg, index)),
        Stmt::Store { to, parts, stream } => {
            write!(f, "{:pad$}{}{to} = ", "", if *stream { "stream " } else { "" })?;
            return match &parts[..] {
                [one] => writeln!(f, "{one}"),
                _ => {
                    f.write_str("interleave(")?;
                    list(f, parts, ", ")?;
                    f.write_str(")\n")
                }
            };
        }
        Stmt::For(l) => {
            let (head, body) = nest(l, WIDTH.saturating_sub(pad));
            write!(f, "{:pad$}{head}", "")?;
            body
        }
        Stmt::When { conds, body } => {
            write!(f, "{:pad$}when ", "")?;
            if conds.is_empty() {
                f.write_str("true")?;
            }
            list(f, conds, " and ")?;
            body
        }
        Stmt::Tile { name, asks, body } => {
            write!(f, "{:pad$}tile {name}", "")?;
            if let Some(Ask { buffer, ranges }) = asks {
                let ranges: Vec<String> = ranges.iter().map(|(lo, hi)| format!("{lo}..{hi}")).collect();
                write!(f, " asks {buffer}[{}]", ranges.join(", "))?;
            }
            body
        }
    };
    f.write_str(" {\n")?;
    body.iter().try_for_each(|s| stmt(f, s, depth + 1))?;
    writeln!(f, "{:pad$}}}", "")
}

/// The heads of a loop and of the loops of its kind perfectly nested in it, as far as `width` goes; and the body of the last one.
fn nest(outer: &Loop, width: usize) -> (String, &[Stmt]) {
    let kind = match outer.kind {
        LoopKind::Seq => "",
        LoopKind::Par => "par ",
        LoopKind::Unroll => "unroll ",
    };
    let mut text = format!("{kind}for {outer}");
    let mut last = outer;
    while let [Stmt::For(inner)] = &last.body[..] {
        let head = inner.to_string();
        if inner.kind != outer.kind || text.len() + head.len() + 4 > width {
            break;
        }
        text.push_str(", ");
        text.push_str(&head);
        last = inner;
    }
    (text, &last.body)
}

impl Display for Buffer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}[", self.name, self.kind.name(), self.elem.name())?;
        list(f, &self.dims, ", ")?;
        f.write_char(']')?;
        if !self.order.iter().copied().eq(0..self.dims.len()) {
            f.write_str(" order")?;
            self.order.iter().try_for_each(|d| write!(f, " {d}"))?;
        }
        Ok(())
    }
}

impl Display for Func {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let elem = self.elem.name();
        writeln!(f, "func {} {elem} stage {} {{", self.name, self.stage)?;
        if !self.symbols.is_empty() {
            f.write_str("  symbols ")?;
            list(f, &self.symbols, ", ")?;
            f.write_char('\n')?;
        }
        self.counts.iter().try_for_each(|c| writeln!(f, "  count {c}"))?;
        self.buffers.iter().try_for_each(|b| writeln!(f, "  buffer {b}"))?;
        for t in &self.tables {
            write!(f, "  table {} = [", t.name)?;
            list(f, &t.values, ", ")?;
            f.write_str("]\n")?;
        }
        for r in &self.regs {
            write!(f, "  reg {}: {elem}", r.name)?;
            if r.lanes != 1 {
                write!(f, "x{}", r.lanes)?;
            }
            if !r.dims.is_empty() {
                f.write_char('[')?;
                list(f, &r.dims, ", ")?;
                f.write_char(']')?;
            }
            f.write_char('\n')?;
        }
        if !self.prepare.is_empty() {
            section(f, "prepare", &self.prepare)?;
        }
        section(f, "run", &self.run)?;
        f.write_str("}\n")
    }
}

fn section(f: &mut Formatter<'_>, name: &str, body: &[Stmt]) -> fmt::Result {
    writeln!(f, "  {name} {{")?;
    body.iter().try_for_each(|s| stmt(f, s, 2))?;
    f.write_str("  }\n")
}

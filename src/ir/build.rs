//! Short constructors for IR, and look-ups by name.

use super::*;

impl Func {
    /// Whether two functions differ in nothing but their stage.
    pub fn same_but_stage(&self, other: &Func) -> bool {
        let Func { name, stage: _, elem, symbols, counts, buffers, tables, regs, prepare, run } = self;
        (name, elem, symbols, counts, buffers) == (&other.name, &other.elem, &other.symbols, &other.counts, &other.buffers)
            && (tables, regs, prepare, run) == (&other.tables, &other.regs, &other.prepare, &other.run)
    }

    /// The same function with another body of `run`.
    pub fn with_run(&self, run: Vec<Stmt>) -> Func {
        let Func { name, stage, elem, symbols, counts, buffers, tables, regs, prepare, run: _ } = self;
        Func {
            name: *name,
            stage: *stage,
            elem: *elem,
            symbols: symbols.clone(),
            counts: counts.clone(),
            buffers: buffers.clone(),
            tables: tables.clone(),
            regs: regs.clone(),
            prepare: prepare.clone(),
            run,
        }
    }

    /// Every symbol, then every count: the order in which code is given their values.
    pub fn all_symbols(&self) -> impl Iterator<Item = &Name> {
        self.symbols.iter().chain(self.counts.iter().map(|c| &c.name))
    }
    /// Whether that is the name of a symbol or of a count.
    pub fn is_symbol<N: ?Sized>(&self, name: &N) -> bool
    where
        Name: PartialEq<N>,
    {
        self.all_symbols().any(|s| *s == *name)
    }
    /// Works out the counts: `values` has a place for each of [`Func::all_symbols`], of which the symbols are filled in.
    pub fn work_out(&self, values: &mut [i64]) {
        for (i, count) in self.counts.iter().enumerate() {
            let known = &*values;
            let value = |name: &Name| self.all_symbols().zip(known).find(|(s, _)| *s == name).map_or(0, |(_, v)| *v);
            let eval = |extent: &Affine| extent.eval(&mut |a| if let Atom::Sym(s) = a { value(s) } else { 0 });
            let up = |n: i64, by: i64| n / by + i64::from(n % by > 0);
            let of = match &count.of {
                CountOf::Even { extent, unit, most } => {
                    let units = up(eval(extent).max(1), (*unit).max(1));
                    up(units, up(units, (*most).max(1)))
                }
                CountOf::Whole { extent, unit, rest } => {
                    up(eval(extent).saturating_sub(*rest).max(0), (*unit).max(1)).saturating_mul(*unit)
                }
                CountOf::Units { extent, unit } => up(eval(extent).max(0), (*unit).max(1)),
                CountOf::Product(a, b) => value(a).saturating_mul(value(b)),
            };
            if let Some(place) = values.get_mut(self.symbols.len() + i) {
                *place = of;
            }
        }
    }
    /// The largest value of an expression in counts, if that is known.
    pub fn largest(&self, e: &Affine) -> Option<i64> {
        let most = |name: &Name| match &self.counts.iter().find(|c| c.name == *name)?.of {
            CountOf::Even { most, .. } => Some(*most),
            CountOf::Whole { extent, unit, rest } => {
                let covered = self.largest(extent)?.checked_sub(*rest)?.max(0);
                (covered / unit + i64::from(covered % unit > 0)).checked_mul(*unit)
            }
            CountOf::Units { extent, unit } => {
                let extent = self.largest(extent)?.max(0);
                Some(extent / unit + i64::from(extent % unit > 0))
            }
            CountOf::Product(a, b) => self.largest(&Affine::sym(a))?.checked_mul(self.largest(&Affine::sym(b))?),
        };
        e.terms.iter().try_fold(e.offset, |sum, (atom, &c)| match atom {
            Atom::Sym(s) if c >= 0 => sum.checked_add(most(s)?.checked_mul(c)?),
            _ => None,
        })
    }
    /// How many tasks the outermost `par` loops of a section make, one without any, given the values of [`Func::all_symbols`].
    pub fn tasks(&self, mut section: &[Stmt], values: &[i64]) -> i64 {
        let symbol = |s: &Name| self.all_symbols().position(|n| n == s).and_then(|i| values.get(i)).map_or(0, |v| *v);
        let eval = |e: &Affine| e.eval(&mut |atom| if let Atom::Sym(s) = atom { symbol(s) } else { 0 });
        let mut tasks = 1i64;
        while let [Stmt::For(l)] = section
            && l.kind == LoopKind::Par
        {
            let span = eval(&l.hi[0]).saturating_sub(eval(&l.lo[0])).max(0);
            let step = l.step.saturating_mul(l.times.as_ref().map_or(1, symbol)).max(1);
            tasks = tasks.saturating_mul(span / step + i64::from(span % step > 0));
            section = &l.body;
        }
        tasks
    }
    /// The values of [`Func::all_symbols`] for those of the symbols.
    pub fn with_counts(&self, symbols: &[i64]) -> Vec<i64> {
        let mut values = [symbols, &vec![1; self.counts.len()]].concat();
        self.work_out(&mut values);
        values
    }
    /// The buffer of that name.
    ///
    /// # Panics
    /// If there is none: names are resolved by the verifier before anything looks them up.
    pub fn buffer(&self, name: &str) -> &Buffer {
        self.find_buffer(name).unwrap_or_else(|| panic!("no buffer {name} in {}", self.name))
    }
    /// The buffer of that name, if there is one.
    pub fn find_buffer<N: ?Sized>(&self, name: &N) -> Option<&Buffer>
    where
        Name: PartialEq<N>,
    {
        self.buffers.iter().find(|b| b.name == *name)
    }
    /// The table of that name, if there is one.
    pub fn find_table<N: ?Sized>(&self, name: &N) -> Option<&Table>
    where
        Name: PartialEq<N>,
    {
        self.tables.iter().find(|t| t.name == *name)
    }
    /// The register of that name, if there is one.
    pub fn find_reg<N: ?Sized>(&self, name: &N) -> Option<&Reg>
    where
        Name: PartialEq<N>,
    {
        self.regs.iter().find(|r| r.name == *name)
    }
}

impl Loop {
    /// `for var in 0..hi`, counted upward by one.
    pub fn new(var: impl Into<Name>, hi: impl Into<Affine>, body: Vec<Stmt>) -> Self {
        Loop { var: var.into(), lo: vec![0.into()], hi: vec![hi.into()], step: 1, times: None, kind: LoopKind::Seq, body }
    }
    /// The same loop around another body.
    pub fn around(&self, body: Vec<Stmt>) -> Self {
        let (var, lo, hi, times) = (self.var, self.lo.clone(), self.hi.clone(), self.times);
        Loop { var, lo, hi, step: self.step, times, kind: self.kind, body }
    }
    /// The same loop with another kind.
    pub fn kind(mut self, kind: LoopKind) -> Self {
        self.kind = kind;
        self
    }
    /// Whether a table is indexed by its variable anywhere in its body.
    pub fn indexes_table(&self) -> bool {
        let mut found = false;
        let mut look = |a: &Affine| found |= a.terms.keys().any(|t| matches!(t, Atom::Table(_, v) if *v == self.var));
        self.body.iter().for_each(|s| s.visit_affine(&mut look));
        found
    }
    /// The constant trip range `(lo, hi)`, if both bounds are single constants.
    pub fn const_range(&self) -> Option<(i64, i64)> {
        match (&self.lo[..], &self.hi[..]) {
            ([lo], [hi]) => Some((lo.as_const()?, hi.as_const()?)),
            _ => None,
        }
    }
}

impl From<Loop> for Stmt {
    fn from(l: Loop) -> Stmt {
        Stmt::For(l)
    }
}

impl Access {
    /// One element.
    pub fn at(buffer: impl Into<Name>, index: Vec<Affine>) -> Self {
        Access { buffer: buffer.into(), index, lanes: None }
    }
}

impl Value {
    /// A single register.
    pub fn reg(name: impl Into<Name>) -> Value {
        Value::Reg(name.into(), Vec::new())
    }
    /// One element of a buffer.
    pub fn load(buffer: impl Into<Name>, index: Vec<Affine>) -> Value {
        Value::Load(Access::at(buffer, index))
    }
    /// `a * b + c`, rounded once.
    pub fn fma(a: Value, b: Value, c: Value) -> Value {
        Value::Fma(Box::new([a, b, c]))
    }
    /// An operation on two values.
    pub fn bin(op: BinOp, a: Value, b: Value) -> Value {
        Value::Bin(op, Box::new([a, b]))
    }
    /// An operation on one value.
    pub fn un(op: UnOp, a: Value) -> Value {
        Value::Un(op, Box::new(a))
    }
    /// `if a cmp b { t } else { e }`.
    pub fn select(cmp: CmpOp, a: Value, b: Value, t: Value, e: Value) -> Value {
        Value::Select(cmp, Box::new([a, b, t, e]))
    }
    /// Rebuilds the value bottom-up through `f`.
    pub fn map(self, f: &mut impl FnMut(Value) -> Value) -> Value {
        let v = match self {
            Value::Const(_) | Value::Reg(..) | Value::Load(_) => self,
            Value::Fma(a) => Value::Fma(Box::new(a.map(|v| v.map(f)))),
            Value::Bin(op, a) => Value::Bin(op, Box::new(a.map(|v| v.map(f)))),
            Value::Un(op, a) => Value::Un(op, Box::new(a.map(f))),
            Value::Select(op, a) => Value::Select(op, Box::new(a.map(|v| v.map(f)))),
        };
        f(v)
    }
    /// The operands.
    pub fn operands(&self) -> &[Value] {
        match self {
            Value::Const(_) | Value::Reg(..) | Value::Load(_) => &[],
            Value::Fma(a) => &a[..],
            Value::Bin(_, a) => &a[..],
            Value::Un(_, a) => std::slice::from_ref(a),
            Value::Select(_, a) => &a[..],
        }
    }
    /// Calls `f` on the value and everything inside it.
    pub fn visit<'a>(&'a self, f: &mut impl FnMut(&'a Value)) {
        f(self);
        self.operands().iter().for_each(|v| v.visit(f));
    }
}

impl Stmt {
    /// `reg = value`.
    pub fn set(reg: impl Into<Name>, value: Value) -> Stmt {
        Stmt::Set { reg: reg.into(), index: Vec::new(), value }
    }
    /// `buffer[index] = value`.
    pub fn store(buffer: impl Into<Name>, index: Vec<Affine>, value: Value) -> Stmt {
        Stmt::Store { to: Access::at(buffer, index), parts: vec![value], stream: false }
    }
    /// `when conds { body }`, or just the body if there is no condition left (then it may be several statements).
    pub fn when(conds: Vec<Cond>, body: Vec<Stmt>) -> Vec<Stmt> {
        if conds.is_empty() { body } else { vec![Stmt::When { conds, body }] }
    }
    /// The statements directly inside, if any.
    pub fn body(&self) -> Option<&[Stmt]> {
        match self {
            Stmt::For(l) => Some(&l.body),
            Stmt::When { body, .. } | Stmt::Tile { body, .. } => Some(body),
            Stmt::Set { .. } | Stmt::Store { .. } => None,
        }
    }
    /// The statements directly inside, if any.
    pub fn body_mut(&mut self) -> Option<&mut Vec<Stmt>> {
        match self {
            Stmt::For(l) => Some(&mut l.body),
            Stmt::When { body, .. } | Stmt::Tile { body, .. } => Some(body),
            Stmt::Set { .. } | Stmt::Store { .. } => None,
        }
    }
    /// Calls `f` on the statement and everything inside it, outermost first.
    pub fn visit(&self, f: &mut impl FnMut(&Stmt)) {
        f(self);
        self.body().into_iter().flatten().for_each(|s| s.visit(f));
    }
    /// Calls `f` on every value that this statement and those below compute, operands included.
    pub fn visit_values(&self, f: &mut impl FnMut(&Value)) {
        self.visit(&mut |s| match s {
            Stmt::Set { value, .. } => value.visit(f),
            Stmt::Store { parts, .. } => parts.iter().for_each(|v| v.visit(f)),
            Stmt::For(_) | Stmt::When { .. } | Stmt::Tile { .. } => {}
        });
    }
    /// Calls `f` on every index expression in this statement and below.
    pub fn visit_affine(&self, f: &mut impl FnMut(&Affine)) {
        fn access(a: &Access, f: &mut impl FnMut(&Affine)) {
            a.index.iter().for_each(&mut *f);
            let clip = a.lanes.iter().filter_map(|l| l.clip.as_ref());
            clip.for_each(|c| c.lo.iter().chain(&c.hi).for_each(&mut *f));
        }
        fn value(v: &Value, f: &mut impl FnMut(&Affine)) {
            v.visit(&mut |v| match v {
                Value::Reg(_, index) => index.iter().for_each(&mut *f),
                Value::Load(a) => access(a, f),
                _ => {}
            });
        }
        self.visit(&mut |s| match s {
            Stmt::For(l) => l.lo.iter().chain(&l.hi).for_each(&mut *f),
            Stmt::When { conds, .. } => conds.iter().flat_map(Cond::affines).for_each(&mut *f),
            Stmt::Tile { asks, .. } => asks.iter().flat_map(|a| &a.ranges).flat_map(|(lo, hi)| [lo, hi]).for_each(&mut *f),
            Stmt::Set { index, value: v, .. } => {
                index.iter().for_each(&mut *f);
                value(v, f);
            }
            Stmt::Store { to, parts, .. } => {
                access(to, f);
                parts.iter().for_each(|v| value(v, f));
            }
        });
    }
    /// Rewrites every index expression directly in this statement and below.
    pub fn map_affine(&mut self, f: &mut impl FnMut(&Affine) -> Affine) {
        let all = |v: &mut Vec<Affine>, f: &mut dyn FnMut(&Affine) -> Affine| v.iter_mut().for_each(|a| *a = f(a));
        match self {
            Stmt::For(l) => {
                all(&mut l.lo, f);
                all(&mut l.hi, f);
            }
            Stmt::When { conds, .. } => conds.iter_mut().for_each(|c| c.map_affine(f)),
            Stmt::Tile { asks, .. } => asks.iter_mut().flat_map(|a| &mut a.ranges).flat_map(|(lo, hi)| [lo, hi]).for_each(|a| *a = f(a)),
            Stmt::Set { index, value, .. } => {
                all(index, f);
                value.map_affine(f);
            }
            Stmt::Store { to, parts, .. } => {
                to.map_affine(f);
                parts.iter_mut().for_each(|v| v.map_affine(f));
            }
        }
        for s in self.body_mut().into_iter().flatten() {
            s.map_affine(f);
        }
    }
}

impl Cond {
    /// Rewrites every index expression in it.
    pub fn map_affine(&mut self, f: &mut impl FnMut(&Affine) -> Affine) {
        match self {
            Cond::Range { lo, e, hi } => [lo, e, hi].into_iter().for_each(|a| *a = f(a)),
            Cond::Multiple { e, .. } => *e = f(e),
        }
    }
    /// Every index expression in it.
    pub fn affines(&self) -> Vec<&Affine> {
        match self {
            Cond::Range { lo, e, hi } => vec![lo, e, hi],
            Cond::Multiple { e, .. } => vec![e],
        }
    }
}

impl Access {
    /// Rewrites every index expression in it.
    pub fn map_affine(&mut self, f: &mut impl FnMut(&Affine) -> Affine) {
        self.index.iter_mut().for_each(|a| *a = f(a));
        if let Some(c) = self.lanes.as_mut().and_then(|l| l.clip.as_mut()) {
            c.lo.iter_mut().chain(c.hi.iter_mut()).for_each(|a| *a = f(a));
        }
    }
}

impl Value {
    /// Rewrites every index expression in it.
    pub fn map_affine(&mut self, f: &mut impl FnMut(&Affine) -> Affine) {
        match self {
            Value::Const(_) => {}
            Value::Reg(_, index) => index.iter_mut().for_each(|a| *a = f(a)),
            Value::Load(a) => a.map_affine(f),
            Value::Fma(v) => v.iter_mut().for_each(|v| v.map_affine(f)),
            Value::Bin(_, v) => v.iter_mut().for_each(|v| v.map_affine(f)),
            Value::Un(_, v) => v.map_affine(f),
            Value::Select(_, v) => v.iter_mut().for_each(|v| v.map_affine(f)),
        }
    }
}

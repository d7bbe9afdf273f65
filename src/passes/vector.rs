//! Pass `vector`: one axis of the tile becomes lanes.
//!
//! *Needs* a tiled nest. *Leaves* vector registers, loads and stores:
//! - the `unroll` loop along the plan's vector axis becomes one over vectors (`.v`), its iterations within a vector become lanes;
//! - a condition on a lane becomes the clip of the load or store it guards;
//! - stores of neighbouring phases, a stride apart each, become one interleaved store;
//! - innermost copy loops (panel, clearing and finishing a plane) run over vectors, too;
//! - a zero in case a load is left out goes where a clip, outside of which a load gives zeros, has taken the place of the condition.
//!
//! ```text
//! unroll rx.t in 0..2: unroll qx.t in 0..32:          unroll qx.v in 0..2:
//!   when 0 <= 2*(qx.b + qx.t) + rx.t - 1 < 64:   ⇒      y[oc, 2*qx.b + 32*qx.v - 1 : 16 step 2 clip 0..64] = interleave(acc[0, qx.v], acc[1, qx.v])
//!     y[oc, 2*(qx.b + qx.t) + rx.t - 1] = acc[rx.t, qx.t]
//! ```

use crate::ir::names::part;
use crate::ir::{Access, Affine, Buffer, Clip, Cond, Func, Lanes, Loop, LoopKind, Name, Stmt, Value};
use crate::plan::Plan;
use crate::{Error, Kind, Result};

/// Turns the plan's vector axis into lanes.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    if plan.lanes <= 1 {
        return Ok(None);
    }
    let lanes = plan.lanes;
    let axis = Axis { scalar: part(&plan.vector, "t"), vector: part(&plan.vector, "v"), lanes };
    let mut vectorised = Vec::new();
    let mut out = func.with_run(axis.list(&func.run, &[], &mut vectorised)?);
    for (reg, dim) in vectorised {
        let Some(r) = out.regs.iter_mut().find(|r| r.name == reg) else { continue };
        if r.lanes == 1 {
            if r.dims[dim] % lanes != 0 {
                let message =
                    format!("the tile holds {} elements along {}, which is not a multiple of {lanes} lanes", r.dims[dim], plan.vector);
                return Err(Error::new(Kind::Options, message));
            }
            r.lanes = lanes;
            r.dims[dim] /= lanes;
        }
    }
    out.run = std::mem::take(&mut out.run).into_iter().map(|s| interleave(s, &out.buffers)).collect();
    super::copies::run(&mut out, lanes);
    overwritten(&mut out.run);
    overwritten(&mut out.prepare);
    Ok(Some(out))
}

/// Removes assignments that the next statement overwrites with what it loads.
fn overwritten(list: &mut Vec<Stmt>) {
    list.iter_mut().filter_map(Stmt::body_mut).for_each(overwritten);
    let mut kept = (0..list.len()).map(|i| list.get(i + 1).is_none_or(|next| !overwrites(next, &list[i]))).collect::<Vec<_>>().into_iter();
    list.retain(|_| kept.next().unwrap_or(true));
}

/// Whether a statement loads what another, which does nothing else, has assigned.
fn overwrites(next: &Stmt, s: &Stmt) -> bool {
    match (s, next) {
        (Stmt::Set { reg, index, .. }, Stmt::Set { reg: to, index: at, value: Value::Load(_) }) => (reg, index) == (to, at),
        (Stmt::For(a), Stmt::For(b)) => {
            a.around(Vec::new()) == b.around(Vec::new()) && matches!((&a.body[..], &b.body[..]), ([a], [b]) if overwrites(b, a))
        }
        _ => false,
    }
}

/// The axis that becomes lanes.
struct Axis {
    /// Its variable within the tile, `qx.t`.
    scalar: Name,
    /// The variable that counts vectors, `qx.v`.
    vector: Name,
    lanes: usize,
}

type Vectorised = Vec<(Name, usize)>;

impl Axis {
    fn on(&self, a: &Affine) -> bool {
        a.uses_var(self.scalar.as_str())
    }

    /// The index of lane 0.
    fn first_lane(&self, a: &Affine) -> Affine {
        a.subst(self.scalar.as_str(), &(Affine::var(self.vector) * self.lanes as i64))
    }

    /// `conds` are conditions on the lane that guard the statements.
    fn list(&self, list: &[Stmt], conds: &[Cond], vectorised: &mut Vectorised) -> Result<Vec<Stmt>> {
        let mut out = Vec::new();
        for s in list {
            out.extend(self.stmt(s, conds, vectorised)?);
        }
        Ok(out)
    }

    fn stmt(&self, s: &Stmt, conds: &[Cond], vectorised: &mut Vectorised) -> Result<Vec<Stmt>> {
        Ok(vec![match s {
            Stmt::For(l) if l.var == self.scalar && l.kind == LoopKind::Unroll => {
                let trips = l.const_range().map_or(0, |(lo, hi)| hi - lo) / self.lanes as i64;
                let body = self.list(&l.body, conds, vectorised)?;
                Loop::new(self.vector, trips, body).kind(LoopKind::Unroll).into()
            }
            Stmt::For(l) => Stmt::For(l.around(self.list(&l.body, conds, vectorised)?)),
            Stmt::Tile { name, asks, body } => Stmt::Tile { name: *name, asks: asks.clone(), body: self.list(body, conds, vectorised)? },
            Stmt::When { conds: here, body } => {
                let (lane, rest): (Vec<_>, Vec<_>) = here.iter().cloned().partition(|c| c.affines().iter().any(|a| self.on(a)));
                let body = self.list(body, &[conds, &lane].concat(), vectorised)?;
                return Ok(Stmt::when(rest, body));
            }
            Stmt::Set { reg, index, value } => {
                let index = self.reg_index(reg, index, vectorised);
                let clipped = matches!(value, Value::Load(a) if a.index.iter().any(|i| self.on(i)));
                if !conds.is_empty() && !clipped {
                    return Err(super::unexpected("vector", "a guarded assignment to load its value along the lanes"));
                }
                Stmt::Set { reg: *reg, index, value: self.value(value, conds, vectorised)? }
            }
            Stmt::Store { to, parts, stream } => {
                let parts = parts.iter().map(|v| self.value(v, conds, vectorised)).collect::<Result<_>>()?;
                Stmt::Store { to: self.access(to, conds)?, parts, stream: *stream }
            }
        }])
    }

    fn reg_index(&self, reg: &Name, index: &[Affine], vectorised: &mut Vectorised) -> Vec<Affine> {
        if let Some(dim) = index.iter().position(|i| self.on(i)) {
            let entry = (*reg, dim);
            if !vectorised.contains(&entry) {
                vectorised.push(entry);
            }
        }
        index.iter().map(|i| i.subst(self.scalar.as_str(), &Affine::var(self.vector))).collect()
    }

    fn value(&self, v: &Value, conds: &[Cond], vectorised: &mut Vectorised) -> Result<Value> {
        let mut failed = None;
        let out = v.clone().map(&mut |v| match v {
            Value::Reg(r, index) => {
                let index = self.reg_index(&r, &index, vectorised);
                Value::Reg(r, index)
            }
            Value::Load(a) => match self.access(&a, conds) {
                Ok(a) => Value::Load(a),
                Err(e) => {
                    failed = Some(e);
                    Value::Load(a)
                }
            },
            v => v,
        });
        failed.map_or(Ok(out), Err)
    }

    fn access(&self, a: &Access, conds: &[Cond]) -> Result<Access> {
        let along: Vec<usize> = (0..a.index.len()).filter(|d| self.on(&a.index[*d])).collect();
        let [dim] = along[..] else {
            return match along.len() {
                0 => Ok(a.clone()),
                _ => Err(super::unexpected("vector", &format!("lanes along one dimension of {}", a.buffer))),
            };
        };
        let step = a.index[dim].coef_of_var(self.scalar.as_str());
        let clip = clip(&a.index[dim], conds, &self.scalar, |c| self.first_lane(c))?;
        let index = a.index.iter().map(|i| self.first_lane(i)).collect();
        Ok(Access { buffer: a.buffer, index, lanes: Some(Lanes { dim, count: self.lanes, step, clip }) })
    }
}

/// The conditions as bounds on the coordinate `at` of a lane. With `at = m*e + shift`, where `shift` is the same for all lanes, `lo <= e < hi` is
/// `m*lo + shift <= at < m*(hi - 1) + 1 + shift`. `first` gives an expression for lane 0.
pub fn clip(at: &Affine, conds: &[Cond], var: &Name, first: impl Fn(&Affine) -> Affine) -> Result<Option<Clip>> {
    let mut clip = Clip { lo: Vec::new(), hi: Vec::new() };
    for c in conds {
        let Cond::Range { lo, e, hi } = c else { return Err(super::unexpected("vector", "range conditions on lanes")) };
        let (moves, with) = (at.coef_of_var(var.as_str()), e.coef_of_var(var.as_str()));
        let scale = if with > 0 && moves % with == 0 { moves / with } else { 0 };
        let shift = at.clone() - e.clone() * scale;
        if scale < 1 || [&shift, lo, hi].into_iter().any(|a| a.uses_var(var.as_str())) {
            return Err(super::unexpected("vector", "conditions that move with the lanes as the access does"));
        }
        clip.lo.push(first(&(lo.clone() * scale + shift.clone())));
        clip.hi.push(first(&((hi.clone() - 1) * scale + 1 + shift)));
    }
    clip.lo.dedup();
    clip.hi.dedup();
    Ok((!clip.lo.is_empty()).then_some(clip))
}

/// Stores of `step` neighbouring phases, each `step` apart in memory, become one store of interleaved parts.
pub fn interleave(mut s: Stmt, buffers: &[Buffer]) -> Stmt {
    if let Stmt::For(l) = &s
        && l.kind == LoopKind::Unroll
        && let Some((0, trips)) = l.const_range()
        && let Some(joined) = join(&l.body, &l.var, trips, buffers)
    {
        return joined;
    }
    if let Some(body) = s.body_mut() {
        *body = std::mem::take(body).into_iter().map(|s| interleave(s, buffers)).collect();
    }
    s
}

/// The only store in a nest of `unroll` loops, with the phases `0..trips` of `var` as its parts.
fn join(body: &[Stmt], var: &Name, trips: i64, buffers: &[Buffer]) -> Option<Stmt> {
    match body {
        [Stmt::For(l)] if l.kind == LoopKind::Unroll => {
            let inner = join(&l.body, var, trips, buffers)?;
            Some(Stmt::For(l.around(vec![inner])))
        }
        [Stmt::When { conds, body }] if !conds.iter().any(|c| c.affines().iter().any(|a| a.uses_var(var.as_str()))) => {
            Some(Stmt::When { conds: conds.clone(), body: vec![join(body, var, trips, buffers)?] })
        }
        [Stmt::Store { to, parts, stream }] if parts.len() == 1 => {
            let lanes = to.lanes.as_ref()?;
            let at = &to.index[lanes.dim];
            let others = to.index.iter().enumerate().any(|(d, i)| d != lanes.dim && i.uses_var(var.as_str()));
            let in_memory = buffers.iter().find(|b| b.name == to.buffer).and_then(|b| b.order.last());
            if in_memory != Some(&lanes.dim) || lanes.step != trips || at.coef_of_var(var.as_str()) != 1 || others {
                return None;
            }
            let fixed = |i: i64| {
                let mut v = parts[0].clone();
                v.map_affine(&mut |a| a.subst(var.as_str(), &i.into()));
                v
            };
            let mut to = to.clone();
            to.map_affine(&mut |a| a.subst(var.as_str(), &0.into()));
            Some(Stmt::Store { to, parts: (0..trips).map(fixed).collect(), stream: *stream })
        }
        _ => None,
    }
}

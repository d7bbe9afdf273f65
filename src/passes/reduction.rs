//! Pass `reduction`: the sum over input channels in parts, between which the outputs wait in scratch memory.
//!
//! *Needs* a blocked gather nest. *Leaves*, if the plan asks for it, a loop over parts of the input channels outside the positions: the weights of one tile of output channels and one
//! part serve every position of the block while they are in cache, and come from memory once. The order of the sums stays: channels in order, with the taps of each part together.
//!
//! ```text
//!                                   for oc.k in 0..4, r…, ic.k in 0..3:
//! for oc, r…, qy, qx:                 for oc in 32*oc.k..min(32*oc.k + 32, 128), qy, qx:
//!   acc = 0                             acc = 0
//!                                ⇒      when 1 <= ic.k < 3: acc = S[qy, qx, oc - 32*oc.k]
//!   for ty, tx, ic in 0..768:           for ty, tx, ic in 0..256:
//!     acc = fma(P[ic, …                   acc = fma(P[256*ic.k + ic, …
//!                                       when 0 <= ic.k < 2: S[qy, qx, oc - 32*oc.k] = acc
//!   y[oc, …] = acc                      when 2 <= ic.k < 3: y[oc, …] = acc
//! ```

use super::nest::{Nest, input_channels, peel, wrap};
use super::panel::{Positions, up};
use crate::ir::names::{ACC, on, part};
use crate::ir::{Affine, Buffer, BufferKind, Cond, Func, Loop, LoopKind, Name, Stmt, Value};
use crate::plan::Plan;
use crate::{Error, Kind, Result};

/// The sums that wait for their next part.
const SUMS: &str = "S";

/// Splits the reduction.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    let part_of = plan.reduction as i64;
    if part_of == 0 {
        return Ok(None);
    }
    let nest = Nest::of(func);
    let par = nest.loops.iter().take_while(|l| l.kind == LoopKind::Par).count();
    let (blocks, rest) = nest.loops.split_at(par);
    let mut inside = wrap(rest, nest.body.clone());
    // Without loops around it the sum stands there as it is.
    let at = inside.iter().position(|s| matches!(s, Stmt::Set { reg, .. } if *reg == ACC)).unwrap_or(inside.len().saturating_sub(1));
    let inner = inside.split_off(at);
    let channels = input_channels(&inner);
    if channels <= part_of {
        return Ok(None);
    }
    let (loops, body) = peel(&inner);
    if let [Stmt::Set { .. }, Stmt::Store { .. }] = body {
        // No tap lands: there is nothing to sum.
        return Ok(None);
    }
    let [start @ Stmt::Set { value: Value::Const(0.0), .. }, taps, end @ Stmt::Store { .. }] = body else {
        return Err(super::unexpected("reduction", "an accumulator, its taps and a store"));
    };
    if channels % part_of != 0 {
        let message = format!("{channels} input channels are not summed in parts of {part_of}; legal: a divisor of their number");
        return Err(Error::new(Kind::Options, message));
    }
    let counter = part(&"ic".into(), "k");
    let (k, parts) = (Affine::var(counter), channels / part_of);
    let within = |lo: i64, hi: i64| vec![Cond::Range { lo: lo.into(), e: k.clone(), hi: hi.into() }];
    let tile = Waiting::new(func, plan, &[&nest.loops[..], &loops].concat(), &loops)?;
    let sums = || Value::load(SUMS, tile.index.clone());
    let body = vec![
        start.clone(),
        Stmt::When { conds: within(1, parts), body: vec![Stmt::set(ACC, sums())] },
        in_part(taps.clone(), part_of, &(Affine::var("ic") + k.clone() * part_of)),
        Stmt::When { conds: within(0, parts - 1), body: vec![Stmt::store(SUMS, tile.index.clone(), Value::reg(ACC))] },
        Stmt::When { conds: within(parts - 1, parts), body: vec![end.clone()] },
    ];
    let nest = [tile.around, vec![Loop::new(counter, parts, Vec::new())], tile.inside].concat();
    inside.extend(wrap(&nest, body));
    let mut out = func.with_run(wrap(blocks, inside));
    out.buffers.push(tile.buffer);
    Ok(Some(out))
}

/// The taps over the channels of one part.
fn in_part(mut s: Stmt, channels: i64, at: &Affine) -> Stmt {
    if let Stmt::For(l) = &mut s
        && l.var == "ic"
    {
        l.hi = vec![channels.into()];
        l.body.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst("ic", at)));
        return s;
    }
    if let Some(body) = s.body_mut() {
        *body = std::mem::take(body).into_iter().map(|s| in_part(s, channels, at)).collect();
    }
    s
}

/// What waits between two parts: the sums of one tile of channels and its phases, at every position of the block.
struct Waiting {
    buffer: Buffer,
    index: Vec<Affine>,
    /// The loops around the parts, and those inside them.
    around: Vec<Loop>,
    inside: Vec<Loop>,
}

impl Waiting {
    fn new(func: &Func, plan: &Plan, all: &[Loop], loops: &[Loop]) -> Result<Self> {
        let (mut around, mut inside) = (Vec::new(), Vec::new());
        let (mut dims, mut index): (Vec<i64>, Vec<Affine>) = (Vec::new(), Vec::new());
        let mut lane = None;
        let mut entry = |var: &Name, extent: i64, at: Affine| {
            if *var == plan.vector {
                lane = Some(dims.len());
            }
            dims.push(extent);
            index.push(at);
        };
        for l in loops {
            let tile = plan.extent(l.var.as_str()) as i64;
            let axis = super::nest::axes(func).iter().find(|a| l.var == on("q", a));
            if l.var == "oc" {
                let chunk = part(&l.var, "k");
                let start = l.lo[0].clone() + Affine::var(chunk) * tile;
                let count = l.hi.iter().find_map(|hi| (hi.clone() - l.lo[0].clone()).as_const()).unwrap_or(1);
                entry(&l.var, tile, Affine::var(l.var) - start.clone());
                around.push(Loop::new(chunk, (count + tile - 1) / tile, Vec::new()));
                inside.push(Loop { lo: vec![start.clone()], hi: [vec![start + tile], l.hi.clone()].concat(), ..l.clone() });
            } else if let Some(axis) = axis {
                let positions = Positions::of(func, all, axis)?;
                entry(&l.var, up(positions.extent, tile), Affine::var(l.var) - positions.base);
                inside.push(l.clone());
            } else {
                if let Some((_, phases)) = l.const_range().filter(|_| tile > 1) {
                    entry(&l.var, phases, Affine::var(l.var));
                }
                around.push(l.clone());
            }
        }
        let order = (0..dims.len()).filter(|d| Some(*d) != lane).chain(lane).collect();
        let dims = dims.into_iter().map(Affine::from).collect();
        let buffer = Buffer { name: SUMS.into(), kind: BufferKind::Scratch, elem: func.elem, dims, order };
        Ok(Waiting { buffer, index, around, inside })
    }
}

//! The way in of pass `winograd`: a panel of one channel (or of a vector of them), then B along every axis, the innermost first.
//!
//! *Needs* the nest that fills the direct panel. *Leaves* the transformed windows `V` of one block.

use super::axis::Axis;
use super::sums::{Entry, Stored, Sum, axis_reg, sum};
use super::{Lowering, WINDOWS};
use crate::ir::names::{INPUT, part};
use crate::ir::{Affine, BufferKind, Cond, Loop, Name, Stmt, Value};
use crate::passes::nest::{peel, wrap};
use crate::passes::panel::{PANEL, odd_lines, spread_lines, up};
use crate::passes::toom_cook::Exact;

/// Places for a block's windows of one channel, and whether their rows end with whole vectors, given how many windows there are, with and without what lies
/// behind them. Windows along the lanes (`lines`) begin with a cache line; those that are broadcast one by one lie close, since they all are to stay in a cache.
pub fn window_places(held: i64, read: i64, lines: bool, bytes: i64) -> (i64, bool) {
    let places = |windows: i64| if lines { spread_lines(windows, bytes) } else { windows };
    let (held, read) = (places(held), places(read.max(held)));
    if read * 4 <= held * 5 { (read, true) } else { (held, false) }
}

impl Lowering<'_> {
    /// The nest over input channels.
    pub(super) fn inward(&mut self) -> Stmt {
        let rank = self.axes.len();
        let (x, row) = (rank - 1, self.row());
        let mut panel: Vec<i64> = self.axes.iter().enumerate().map(|(a, axis)| self.panel_extent(a, axis)).collect();
        let (together, along) = (self.together(), self.channels_along());
        if together > 1 && !along {
            panel[x] = odd_lines(panel[x], self.func.elem.bytes() as i64);
        }
        let mut from = self.buffer(PANEL, BufferKind::Scratch, &[&[together], &panel[..]].concat());
        let (channel, within): (Name, Name) = ("ic".into(), part(&"ic".into(), "i"));
        let counter = if together > 1 { part(&channel, "o") } else { channel };
        let first = Affine::var(counter);
        if along {
            self.innermost(0);
        }
        let fill = self.fill(&first, together);
        // What lies along the lanes, innermost: windows of a row, or channels. Then windows of a row are around all steps, which hold one of them.
        let lanes = if along { Loop::new(within, together, Vec::new()) } else { Loop::new(self.x().var("w"), row, Vec::new()) };
        let (from_panel, into_windows) = match along {
            true => (Affine::var(within), first.clone() + Affine::var(within)),
            false => (Affine::var(channel) - first.clone(), Affine::var(channel)),
        };
        let mut body = Vec::new();
        let transformed: Vec<usize> = (0..rank).rev().filter(|a| !self.axes[*a].summed).collect();
        for a in transformed {
            // What this step reads: panel rows of the axes before it, products of those behind it, windows of those behind it.
            let (before, behind) = (&self.axes[..a], &self.axes[a + 1..]);
            let mut loops: Vec<Loop> =
                before.iter().enumerate().map(|(i, axis)| Loop::new(axis.var("p"), self.panel_rows(i, panel[i]), Vec::new())).collect();
            loops.extend((a..x).map(|i| Loop::new(self.axes[i].var("w"), self.axes[i].held(), Vec::new())));
            loops.extend(behind.iter().filter_map(|axis| Some(Loop::new(axis.var("v"), axis.v_dim()?, Vec::new()))));
            loops.push(lanes.clone());
            let p: Vec<Affine> = before.iter().map(|axis| axis.at("p")).collect();
            let v: Vec<Affine> = behind.iter().filter(|axis| !axis.summed).map(|axis| axis.at("v")).collect();
            let held = |i: usize| if i == x { Affine::var(lanes.var) } else { self.axes[i].at("w") };
            let w: Vec<Affine> = (a + 1..rank).map(held).collect();
            let flat = self.flat();
            let axis = &self.axes[a];
            // The panel itself is what the first step reads; its columns are counted by the windows of x, whatever lies along the lanes.
            let of_panel = from == PANEL;
            let columns: Vec<Affine> = if of_panel { (a + 1..rank).map(|i| self.axes[i].at("w")).collect() } else { w.clone() };
            let pixel = |e: i64| [p.clone(), vec![axis.at("w") * axis.advance() + e], v.clone(), columns.clone()].concat();
            let to = |i: i64| -> Vec<Affine> {
                if a == 0 {
                    return [vec![i.into()], v.clone(), vec![into_windows.clone(), flat.clone()]].concat();
                }
                [p.clone(), vec![i.into()], v.clone(), vec![held(a)], w.clone()].concat()
            };
            let rows: Vec<(i64, Sum)> = axis
                .classes
                .iter()
                .flat_map(|c| c.starts.iter().enumerate().map(move |(f, start)| (c, f, *start)))
                .flat_map(|(c, f, start)| {
                    let row = move |(i, b): (usize, &Vec<Exact>)| (c.v(i, f), sum(b, |e| start + e as i64 * axis.apart));
                    c.toom.input.iter().enumerate().map(row)
                })
                .collect();
            let name = if a == 0 { WINDOWS.into() } else { Name::from(format!("X{}", axis.name)) };
            let dims: Vec<i64> = if a == 0 {
                self.axes.iter().filter_map(Axis::v_dim).chain(self.windows_dims()).collect()
            } else {
                let held = |i: usize| if i < x { self.axes[i].windows } else { lanes.const_range().map_or(1, |r| r.1) };
                panel[..a].iter().copied().chain(self.axes[a..].iter().filter_map(Axis::v_dim)).chain((a..rank).map(held)).collect()
            };
            let from_panel = if of_panel { vec![from_panel.clone()] } else { Vec::new() };
            let pixels: Vec<Entry> = axis.pixels().map(|e| (e, [from_panel.clone(), pixel(e)].concat())).collect();
            let stores: Vec<Stored> = rows.into_iter().map(|(i, s)| (to(i), s)).collect();
            let into = self.buffer(name, BufferKind::Scratch, &dims);
            if along && a == 0 {
                self.innermost(rank);
            }
            let mut step = self.transform(&axis_reg("d", a, rank), &from, &pixels, &into, stores);
            if a == 0 && !along && !self.window_places().1 {
                // What lies behind the end of a row belongs to the next.
                let e = self.x().at("w");
                let inside = vec![Cond::Range { lo: 0.into(), e, hi: self.x().held() }];
                let guarded = |s| if let Stmt::Store { .. } = s { Stmt::when(inside.clone(), vec![s]) } else { vec![s] };
                step = step.into_iter().flat_map(guarded).collect();
            }
            body.extend(wrap(&loops, step));
            from = into;
        }
        if along {
            body = vec![Loop::new(self.x().var("w"), self.x().held(), body).into()];
        } else if together > 1 {
            let hi = vec![first.clone() + together, self.inputs.into()];
            body = vec![Loop { lo: vec![first], hi, ..Loop::new(channel, 1, body) }.into()];
        }
        Loop { step: together, ..Loop::new(counter, self.inputs, [fill, body].concat()) }.into()
    }

    /// Places for the input channels and windows of a block. Where channels lie innermost, a window's are whole vectors, in lines whose number is no multiple of
    /// four.
    fn windows_dims(&self) -> [i64; 2] {
        if self.channels_along() {
            let channels = spread_lines(up(self.inputs, self.lanes()), self.func.elem.bytes() as i64);
            return [channels, self.tiled() + self.x().reach()];
        }
        [self.inputs | 1, self.window_places().0]
    }

    /// Places for the windows of a channel, and whether a whole vector of them is stored at the end of a row, too: what it writes of the next row, that writes
    /// again. Behind the last row it takes room, which must be little beside that of the windows.
    fn window_places(&self) -> (i64, bool) {
        let tiled = self.tiled() + self.x().reach();
        let read = self.windows() - self.x().windows + self.row();
        window_places(tiled, read, self.plan.vector != "oc", self.func.elem.bytes() as i64)
    }

    /// Input channels that the panel holds: one, or as many as lie side by side in what a vector loads.
    pub(super) fn together(&self) -> i64 {
        let x = self.func.buffer(INPUT);
        if x.order.last() == Some(&1) && self.inputs > 1 { self.lanes() } else { 1 }
    }

    /// The rows of the panel that windows read; along x as many columns as whole vectors of windows read.
    fn panel_extent(&self, a: usize, axis: &Axis) -> i64 {
        let windows = if a + 1 == self.axes.len() && !self.channels_along() { self.row() } else { axis.windows };
        ((windows - 1) * axis.advance() + axis.pixels().end).max(axis.panel)
    }

    /// How many of the panel's rows along an axis a block reads.
    fn panel_rows(&self, a: usize, panel: i64) -> Affine {
        let axis = &self.axes[a];
        let lanes = a + 1 == self.axes.len() && !self.channels_along();
        if axis.count.is_none() || lanes { panel.into() } else { axis.held() * axis.advance() + axis.pixels().end - axis.advance() }
    }

    /// The fill of the panel for some channels, from the first on: the loop over channels goes around.
    fn fill(&self, first: &Affine, together: i64) -> Vec<Stmt> {
        let (loops, body) = peel(std::slice::from_ref(&self.fill));
        let within = part(&"ic".into(), "i");
        let at = first.clone() + Affine::var(within);
        let mut body = body.to_vec();
        body.iter_mut().for_each(|s| s.map_affine(&mut |a| a.subst("ic", &at)));
        fn redirect(body: &mut [Stmt], within: &Name) {
            for s in body {
                if let Stmt::Store { to, .. } = s
                    && to.buffer == PANEL
                {
                    to.index[0] = Affine::var(within);
                }
                s.body_mut().into_iter().for_each(|inner| redirect(inner, within));
            }
        }
        redirect(&mut body, &within);
        if self.inputs % together != 0 {
            let exists = vec![Cond::Range { lo: 0.into(), e: at, hi: self.inputs.into() }];
            let guarded = body.into_iter().map(|s| match s {
                Stmt::When { conds, body } => Stmt::when([exists.clone(), conds].concat(), body),
                s @ Stmt::Set { value: Value::Load(_), .. } => Stmt::when(exists.clone(), vec![s]),
                s => vec![s],
            });
            body = guarded.flatten().collect();
            if let Some(Stmt::When { body: inner, .. }) = body.first()
                && let Some(Stmt::Set { reg, .. }) = inner.first()
            {
                body.insert(0, Stmt::set(*reg, Value::Const(0.0)));
            }
        }
        let mut nest: Vec<Loop> = loops.into_iter().filter(|l| l.var != "ic").collect();
        for l in &mut nest {
            if let (Some(a), Some((0, rows))) = (self.axes.iter().position(|axis| axis.var("p") == l.var), l.const_range()) {
                l.hi = vec![self.panel_rows(a, rows)];
            }
        }
        // Lanes are channels either way: innermost, or turned with the columns.
        let at = if self.channels_along() { nest.len() } else { 0 };
        nest.insert(at, Loop::new(within, together, Vec::new()));
        wrap(&nest, body)
    }
}

//! Loads and stores of lanes.
//!
//! Where lanes are neighbours in memory and all of them are inside the clip, a vector goes to memory as it is. Otherwise it goes through a
//! slot on the stack, lane by lane, by a short loop that tests each coordinate: edges are rare, and code stays small.
//! Nothing outside the clip is ever touched.

use super::Emit;
use super::address::{Scope, Stride};
use super::value::Vals;
use crate::Result;
use crate::ir::{Access, Lanes};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, types};

fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Emit<'_, '_, '_> {
    pub(super) fn load(&mut self, a: &Access) -> Vals {
        let at = self.address(&a.buffer, &a.index);
        let Some(lanes) = &a.lanes else {
            let ty = self.scalar_type();
            let v = self.b.ins().load(ty, flags(), at.base, at.offset as i32);
            return Vals { lanes: 1, parts: vec![v] };
        };
        let adjacent = lanes.step == 1 && self.unit_stride(a, lanes);
        let inside = self.inside(a, lanes, 1);
        match (adjacent, inside) {
            (true, None) => self.load_parts(lanes.count, at.base, at.offset),
            (true, Some(inside)) => {
                let (ty, parts) = self.parts(lanes.count);
                let [fast, slow, after] = [(); 3].map(|()| self.b.create_block());
                let joined: Vec<clif::Value> = (0..parts).map(|_| self.b.append_block_param(after, ty)).collect();
                self.b.ins().brif(inside, fast, &[], slow, &[]);
                for (block, edge) in [(fast, false), (slow, true)] {
                    self.b.switch_to_block(block);
                    self.b.seal_block(block);
                    if edge {
                        self.b.set_cold_block(block);
                    }
                    self.scopes.push(Scope::default());
                    let v = if edge { self.load_slowly(a, lanes) } else { self.load_parts(lanes.count, at.base, at.offset) };
                    self.scopes.pop();
                    let args: Vec<clif::BlockArg> = v.parts.iter().map(|v| (*v).into()).collect();
                    self.b.ins().jump(after, &args);
                }
                self.b.seal_block(after);
                self.b.switch_to_block(after);
                Vals { lanes: lanes.count, parts: joined }
            }
            (false, _) => self.load_slowly(a, lanes),
        }
    }

    pub(super) fn store(&mut self, to: &Access, values: Vec<Vals>) {
        let at = self.address(&to.buffer, &to.index);
        let Some(lanes) = &to.lanes else {
            self.b.ins().store(flags(), values[0].parts[0], at.base, at.offset as i32);
            return;
        };
        let values: Vec<Vals> = values.into_iter().map(|v| self.broadcast(v, lanes.count)).collect();
        let adjacent = self.unit_stride(to, lanes) && lanes.step == values.len() as i64 && values.len() <= 2;
        match (adjacent, self.inside(to, lanes, values.len())) {
            (true, None) => self.store_parts(&values, at.base, at.offset),
            (true, Some(inside)) => {
                let [fast, slow, after] = [(); 3].map(|()| self.b.create_block());
                self.b.ins().brif(inside, fast, &[], slow, &[]);
                for (block, edge) in [(fast, false), (slow, true)] {
                    self.b.switch_to_block(block);
                    self.b.seal_block(block);
                    if edge {
                        self.b.set_cold_block(block);
                    }
                    self.scopes.push(Scope::default());
                    if edge {
                        self.store_slowly(to, lanes, &values)
                    } else {
                        self.store_parts(&values, at.base, at.offset)
                    }
                    self.scopes.pop();
                    self.b.ins().jump(after, &[]);
                }
                self.b.seal_block(after);
                self.b.switch_to_block(after);
            }
            (false, _) => self.store_slowly(to, lanes, &values),
        }
    }

    fn unit_stride(&self, a: &Access, lanes: &Lanes) -> bool {
        let bytes = self.unit.func.elem.bytes() as i64;
        matches!(self.strides[&a.buffer][lanes.dim], Stride::Const(s) if s == bytes)
    }

    /// Whether all lanes (of all parts) are inside the clip; `None` if there is no clip.
    fn inside(&mut self, a: &Access, lanes: &Lanes, parts: usize) -> Option<clif::Value> {
        let clip = lanes.clip.as_ref()?;
        let first = self.index(&a.index[lanes.dim]);
        let end = self.b.ins().iadd_imm_s(first, lanes.step * (lanes.count as i64 - 1) + parts as i64);
        let (lo, hi) = (self.extreme(&clip.lo, true), self.extreme(&clip.hi, false));
        let low = self.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, first, lo);
        let high = self.b.ins().icmp(IntCC::SignedLessThanOrEqual, end, hi);
        Some(self.b.ins().band(low, high))
    }

    fn load_parts(&mut self, lanes: usize, base: clif::Value, offset: i64) -> Vals {
        let (ty, parts) = self.parts(lanes);
        let at = |i: usize| (offset + i as i64 * i64::from(ty.bytes())) as i32;
        let parts = (0..parts).map(|i| self.b.ins().load(ty, flags(), base, at(i))).collect();
        Vals { lanes, parts }
    }

    /// One part as it is, or two interleaved.
    fn store_parts(&mut self, values: &[Vals], base: clif::Value, offset: i64) {
        let bytes = i64::from(self.b.func.dfg.value_type(values[0].parts[0]).bytes());
        let mut at = offset;
        for i in 0..values[0].parts.len() {
            let group: Vec<clif::Value> = match values {
                [one] => vec![one.parts[i]],
                [a, b] => self.zip(a.parts[i], b.parts[i]).to_vec(),
                _ => unreachable!("more parts go through the stack"),
            };
            for v in group {
                self.b.ins().store(flags(), v, base, at as i32);
                at += bytes;
            }
        }
    }

    /// `a0 b0 a1 b1 …` of two vectors (or scalars).
    fn zip(&mut self, a: clif::Value, b: clif::Value) -> [clif::Value; 2] {
        let ty = self.b.func.dfg.value_type(a);
        if !ty.is_vector() {
            return [a, b];
        }
        let (lanes, bytes) = (ty.lane_count() as u8, ty.lane_bits() as u8 / 8);
        let [a, b] = [a, b].map(|v| self.bitcast(types::I8X16, v));
        [0, lanes / 2].map(|from| {
            let pick = (0..lanes).flat_map(|j| {
                let lane = from + j / 2 + if j % 2 == 1 { lanes } else { 0 };
                (0..bytes).map(move |byte| lane * bytes + byte)
            });
            let mask = self.b.func.dfg.immediates.push(pick.collect::<Vec<u8>>().into());
            let v = self.b.ins().shuffle(a, b, mask);
            self.bitcast(ty, v)
        })
    }

    /// A slot on the stack for so many elements.
    fn slot(&mut self, elements: usize) -> clif::Value {
        let bytes = elements * self.unit.func.elem.bytes();
        let slot = match self.slots.get(&bytes) {
            Some(slot) => *slot,
            None => {
                let slot = self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 4));
                self.slots.insert(bytes, slot);
                slot
            }
        };
        self.b.ins().stack_addr(types::I64, slot, 0)
    }

    /// Lane by lane into a slot on the stack, which is then loaded as a vector.
    fn load_slowly(&mut self, a: &Access, lanes: &Lanes) -> Vals {
        let slot = self.slot(lanes.count);
        let (ty, parts) = self.parts(lanes.count);
        let zero = match self.unit.func.elem {
            crate::ir::Elem::F32 => self.b.ins().f32const(0.0),
            crate::ir::Elem::F64 => self.b.ins().f64const(0.0),
        };
        let zero = if ty.is_vector() { self.b.ins().splat(ty, zero) } else { zero };
        for i in 0..parts {
            self.b.ins().store(flags(), zero, slot, (i as u32 * ty.bytes()) as i32);
        }
        let scalar = self.scalar_type();
        self.each_lane(a, lanes, lanes.count, lanes.step, |e, place, j| {
            let v = e.b.ins().load(scalar, flags(), place, 0);
            let to = e.element(slot, j);
            e.b.ins().store(flags(), v, to, 0);
        });
        self.load_parts(lanes.count, slot, 0)
    }

    /// Vectors into a slot on the stack, from there lane by lane.
    fn store_slowly(&mut self, to: &Access, lanes: &Lanes, values: &[Vals]) {
        let bytes = self.unit.func.elem.bytes();
        let scalar = self.scalar_type();
        for (i, v) in values.iter().enumerate() {
            let slot = self.slot(lanes.count);
            let mut at = 0;
            for p in &v.parts {
                self.b.ins().store(flags(), *p, slot, at);
                at += self.b.func.dfg.value_type(*p).bytes() as i32;
            }
            debug_assert_eq!(at as usize, lanes.count * bytes);
            let mut part = to.clone();
            part.index[lanes.dim] = part.index[lanes.dim].clone() + i as i64;
            self.each_lane(&part, lanes, lanes.count, lanes.step, |e, place, j| {
                let from = e.element(slot, j);
                let v = e.b.ins().load(scalar, flags(), from, 0);
                e.b.ins().store(flags(), v, place, 0);
            });
        }
    }

    fn element(&mut self, slot: clif::Value, j: clif::Value) -> clif::Value {
        let offset = self.b.ins().imul_imm_s(j, self.unit.func.elem.bytes() as i64);
        self.b.ins().iadd(slot, offset)
    }

    /// A loop over lanes whose coordinate is inside the clip: `f(address of the lane's element, lane)`.
    fn each_lane(&mut self, a: &Access, lanes: &Lanes, count: usize, step: i64, f: impl FnOnce(&mut Self, clif::Value, clif::Value)) {
        let at = self.address(&a.buffer, &a.index);
        let base = self.b.ins().iadd_imm_s(at.base, at.offset);
        let stride = match self.strides[&a.buffer][lanes.dim] {
            Stride::Const(s) => self.b.ins().iconst(types::I64, s * step),
            Stride::Value(v) => self.b.ins().imul_imm_s(v, step),
        };
        let first = self.index(&a.index[lanes.dim]);
        let bounds = lanes.clip.as_ref().map(|c| (self.extreme(&c.lo, true), self.extreme(&c.hi, false)));
        let (zero, count) = (self.b.ins().iconst(types::I64, 0), self.b.ins().iconst(types::I64, count as i64));
        let body = |e: &mut Self| -> Result<()> {
            let j = e.var("lane");
            let after = bounds.map(|(lo, hi)| {
                let offset = e.b.ins().imul_imm_s(j, step);
                let coordinate = e.b.ins().iadd(first, offset);
                let low = e.less(coordinate, lo);
                let high = e.less(coordinate, hi);
                let inside = e.b.ins().band_not(high, low);
                let (then, after) = (e.b.create_block(), e.b.create_block());
                e.b.ins().brif(inside, then, &[], after, &[]);
                e.b.switch_to_block(then);
                e.b.seal_block(then);
                after
            });
            let offset = e.b.ins().imul(j, stride);
            let place = e.b.ins().iadd(base, offset);
            f(e, place, j);
            if let Some(after) = after {
                e.b.ins().jump(after, &[]);
                e.b.seal_block(after);
                e.b.switch_to_block(after);
            }
            Ok(())
        };
        self.counted("lane", zero, count, 1, body).expect("copying lanes cannot fail");
    }
}

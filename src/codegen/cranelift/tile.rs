//! Calling a wide tile: its machine code joins the module, its arguments are computed here and passed in an array on the stack.

use super::address::Stride;
use super::{Emit, Piece, refused};
use crate::Result;
use crate::codegen::target::Isa;
use crate::codegen::wide::{self, TileArg, WideIsa};
use crate::ir::Stmt;
use cranelift_codegen::ir::{self as clif, AbiParam, InstBuilder, StackSlotData, StackSlotKind, types};
use cranelift_module::{Linkage, Module};

/// Tiles start at this address multiple, as their loops are placed for it.
const ALIGN: u64 = 64;

impl Emit<'_, '_, '_> {
    /// Emits the tile's machine code and a call of it.
    pub(super) fn call_tile(&mut self, tile: &Stmt) -> Result<()> {
        let isa = if self.unit.isa == Isa::Avx512 { WideIsa::Avx512 } else { WideIsa::Avx2 };
        let emitted = wide::emit(self.unit.func, tile, isa)?;
        self.streams |= emitted.notes.streams;
        let mut signature = self.unit.module.make_signature();
        signature.params.push(AbiParam::new(types::I64));
        let name = match tile {
            Stmt::Tile { name, .. } => format!("tile{}.{name}", self.unit.pieces.len()),
            _ => unreachable!("called for a tile"),
        };
        let module = &mut self.unit.module;
        let id = module.declare_function(&name, Linkage::Local, &signature).map_err(|e| refused(&e))?;
        module.define_function_bytes(id, ALIGN, &emitted.code, &[]).map_err(|e| refused(&e))?;
        let callee = module.declare_func_in_func(id, self.b.func);
        self.unit.pieces.push(Piece { name, clif: String::new(), code: emitted.code });

        let bytes = (emitted.args.len().max(1) * 8) as u32;
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3));
        for (i, arg) in emitted.args.iter().enumerate() {
            let v = self.argument(arg);
            self.b.ins().stack_store(types::I64, v, slot, (i * 8) as i32);
        }
        let at = self.b.ins().stack_addr(types::I64, slot, 0);
        self.b.ins().call(callee, &[at]);
        Ok(())
    }

    fn argument(&mut self, arg: &TileArg) -> clif::Value {
        match arg {
            TileArg::Address(a) => {
                let at = self.address(&a.buffer, &a.index);
                if at.offset == 0 { at.base } else { self.b.ins().iadd_imm_s(at.base, at.offset) }
            }
            TileArg::Int(a) => self.index(a),
            TileArg::IntMax(list) => self.extreme(list, true),
            TileArg::IntMin(list) => self.extreme(list, false),
            TileArg::Stride { buffer, dim } => match self.strides[buffer][*dim] {
                Stride::Const(s) => self.b.ins().iconst(types::I64, s),
                Stride::Value(v) => v,
            },
        }
    }
}

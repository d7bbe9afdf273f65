//! Instructions with labels, to bytes: jumps get their distances, constants behind the code their places, and loops theirs.
//!
//! One pass. Jumps are near ones: what lies ahead gets four bytes, which are filled in at the end. An innermost loop begins so many bytes later that its jumps
//! do not touch the end of a block of 32 bytes ([`BLOCK`]).

use super::encode::Done;
use iced_x86::code_asm::CodeAssembler;
use iced_x86::{Encoder, Instruction, Mnemonic, OpKind};
use rustc_hash::FxHashMap as HashMap;
use std::ops::RangeInclusive;

/// Bytes of a block of code that a jump should lie in, with the comparison that it is one operation with. Intel's processors from Skylake to Cascade Lake do not
/// keep the block decoded if the jump crosses its end or ends with it (the Jump Conditional Code erratum): a loop of 24 multiply-adds then takes a fifth longer.
const BLOCK: u64 = 32;

/// A distance that is not known yet: where its four bytes are, from where it counts, and to which label.
struct Open {
    at: usize,
    from: u64,
    label: u64,
}

/// The bytes of instructions in which labels stand for addresses: the number of a label is the address of the instruction that it marks, the target of jumps and
/// the displacement of operands relative to the instruction pointer. Labels are numbered from 1. The first byte is to lie at the beginning of a block.
///
/// # Errors
/// What has no encoding.
///
/// # Panics
/// If a label marks nothing.
pub(super) fn link(code: &[Instruction]) -> Done<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    let mut places: HashMap<u64, u64> = HashMap::default();
    let mut open = Vec::new();
    let mut at = 0;
    let mut loops = innermost(code).into_iter().peekable();
    for (n, i) in code.iter().enumerate() {
        if let Some(body) = loops.next_if(|body| *body.start() == n) {
            let jumps = jumps(&code[body])?;
            let touching = |later: &u64| jumps.iter().filter(|jump| touches(at + later, **jump)).count();
            let later = (0..BLOCK).min_by_key(touching).unwrap_or(0);
            at += wait(&mut encoder, at, later)?;
        }
        if i.ip() != 0 {
            places.insert(i.ip(), at);
        }
        let jump = is_jump(i);
        let constant = i.is_ip_rel_memory_operand() && i.op_kinds().any(|kind| kind == OpKind::Memory);
        if !jump && !constant {
            at += encoder.encode(i, at)? as u64;
            continue;
        }
        let (mut i, start) = (*i, at);
        let label = if jump { i.near_branch64() } else { i.memory_displacement64() };
        let place = places.get(&label).copied();
        let target = place.unwrap_or(at);
        if jump {
            i.set_near_branch64(target);
        } else {
            i.set_memory_displacement64(target);
        }
        at += encoder.encode(&i, at)? as u64;
        if place.is_none() {
            let fields = encoder.get_constant_offsets();
            let field = if jump { fields.immediate_offset() } else { fields.displacement_offset() };
            open.push(Open { at: start as usize + field, from: at, label });
        }
    }
    let mut bytes = encoder.take_buffer();
    for Open { at, from, label } in open {
        // Ahead of what jumps there, and tiles have far fewer bytes than four of them count.
        let distance = (places[&label] - from) as u32;
        bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
    }
    Ok(bytes)
}

fn is_jump(i: &Instruction) -> bool {
    i.op_kinds().any(|kind| kind == OpKind::NearBranch64)
}

/// The loops that hold no other loop, in order: from the instruction that marks the top to the jump back to it.
fn innermost(code: &[Instruction]) -> Vec<RangeInclusive<usize>> {
    let mut tops: HashMap<u64, usize> = HashMap::default();
    let mut out: Vec<RangeInclusive<usize>> = Vec::new();
    for (n, i) in code.iter().enumerate() {
        if i.ip() != 0 {
            tops.insert(i.ip(), n);
        }
        let top = is_jump(i).then(|| tops.get(&i.near_branch64())).flatten();
        out.extend(top.filter(|top| out.last().is_none_or(|inner| inner.end() < *top)).map(|top| *top..=n));
    }
    out
}

/// Where the jumps of a loop begin, counted from its top, each with the comparison before it, and where they end.
fn jumps(body: &[Instruction]) -> Done<Vec<[u64; 2]>> {
    use Mnemonic::{Add, And, Cmp, Dec, Inc, Sub, Test};
    let mut encoder = Encoder::new(64);
    let (mut at, mut before, mut out) = (0, 0, Vec::new());
    for (n, i) in body.iter().enumerate() {
        let mut i = *i;
        if is_jump(&i) {
            i.set_near_branch64(at);
        } else if i.is_ip_rel_memory_operand() {
            i.set_memory_displacement64(at);
        }
        let end = at + encoder.encode(&i, at)? as u64;
        if is_jump(&i) {
            let joined = n > 0 && matches!(body[n - 1].mnemonic(), Add | And | Cmp | Dec | Inc | Sub | Test);
            out.push([if joined { before } else { at }, end]);
        }
        (before, at) = (at, end);
    }
    Ok(out)
}

/// Whether a jump crosses the end of a block or ends with it, if the loop begins at `top`.
fn touches(top: u64, [begin, end]: [u64; 2]) -> bool {
    (top + begin) / BLOCK != (top + end) / BLOCK
}

/// Fills so many bytes with instructions that do nothing.
fn wait(encoder: &mut Encoder, at: u64, bytes: u64) -> Done<u64> {
    let mut asm = CodeAssembler::new(64)?;
    asm.nops_with_size(bytes as usize)?;
    asm.instructions().iter().try_fold(0, |n, i| Ok(n + encoder.encode(i, at + n)? as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::code_asm::*;
    use iced_x86::{Code, Decoder, DecoderOptions};

    /// A loop with a jump ahead, in another loop, behind so many bytes.
    fn nested(before: usize) -> Done<Vec<u8>> {
        let mut asm = CodeAssembler::new(64)?;
        asm.set_prefer_short_branch(false);
        let [mut outer, mut inner, mut over] = [(); 3].map(|()| asm.create_label());
        asm.nops_with_size(before)?;
        asm.set_label(&mut outer)?;
        asm.mov(r9, 5u64)?;
        asm.set_label(&mut inner)?;
        asm.add(r11, 5)?;
        asm.cmp(r11, 0)?;
        asm.jl(over)?;
        asm.mov(r11, qword_ptr(rdi + 24))?;
        asm.set_label(&mut over)?;
        asm.vaddps(zmm0, zmm0, zmm1)?;
        asm.dec(r9)?;
        asm.jg(inner)?;
        asm.dec(r8)?;
        asm.jg(outer)?;
        asm.ret()?;
        link(&asm.take_instructions())
    }

    #[test]
    fn jumps_of_innermost_loops_touch_no_end_of_a_block() {
        for before in 0..=64 {
            let bytes = nested(before).expect("it has an encoding");
            let code: Vec<Instruction> = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).iter().collect();
            let jumps: Vec<usize> = (0..code.len()).filter(|n| is_jump(&code[*n])).collect();
            let [over, inner, outer] = jumps[..] else { panic!("{before}: {} jumps", jumps.len()) };
            for jump in [over, inner] {
                assert!(!touches(0, [code[jump - 1].ip(), code[jump].next_ip()]), "{before}: {}", code[jump]);
            }
            let to = |jump: usize| code.iter().find(|i| i.ip() == code[jump].near_branch_target()).map(Instruction::code);
            assert_eq!(
                [to(over), to(inner), to(outer)],
                [Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, Code::Add_rm64_imm8, Code::Mov_r64_imm64].map(Some)
            );
        }
    }
}

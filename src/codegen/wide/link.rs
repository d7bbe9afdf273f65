//! Instructions with labels, to bytes: jumps get their distances, constants behind the code their places.
//!
//! One pass, so that each instruction is encoded once. Jumps are near ones: what lies ahead gets four bytes, which are filled in at the end.

use super::encode::Done;
use iced_x86::{Encoder, Instruction, OpKind};
use rustc_hash::FxHashMap as HashMap;

/// A distance that is not known yet: where its four bytes are, from where it counts, and to which label.
struct Open {
    at: usize,
    from: u64,
    label: u64,
}

/// The bytes of instructions in which labels stand for addresses: the number of a label is the address of the instruction that it marks, the target of jumps and
/// the displacement of operands relative to the instruction pointer. Labels are numbered from 1.
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
    for i in code {
        if i.ip() != 0 {
            places.insert(i.ip(), at);
        }
        let jump = i.op_kinds().any(|kind| kind == OpKind::NearBranch64);
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

//! Where the scratch buffers of one thread lie.
//!
//! No task reads what another left in scratch memory. So a buffer is in use from the first statement of a task that names it to the last one, and buffers
//! of which one has done its work before the other begins lie in the same memory: what the transforms of windows leave behind them makes way for products.

use crate::ir::{Buffer, BufferKind, Func, LoopKind, Stmt, Value};
use std::ops::RangeInclusive;

/// Scratch buffers start at multiples of this: a cache line.
const LINE: usize = 64;

/// The scratch buffers of a function, those first that are in use for the most statements.
pub struct Places(Vec<Place>);

struct Place {
    /// Its number among the function's buffers.
    buffer: usize,
    /// Which of those before it are in use at the same time.
    beside: Vec<usize>,
}

impl Places {
    /// Those of a function.
    pub fn of(func: &Func) -> Places {
        let task = task(&func.run);
        let mut used: Vec<(usize, RangeInclusive<usize>)> = Vec::new();
        for (buffer, b) in func.buffers.iter().enumerate().filter(|(_, b)| b.kind == BufferKind::Scratch) {
            let mut at = (0..task.len()).filter(|s| names(&task[*s], b));
            let Some(first) = at.next() else { continue };
            used.push((buffer, first..=at.next_back().unwrap_or(first)));
        }
        used.sort_by_key(|(_, statements)| std::cmp::Reverse(statements.end() - statements.start()));
        let meet = |a: &RangeInclusive<usize>, b: &RangeInclusive<usize>| a.start() <= b.end() && b.start() <= a.end();
        let beside = |i: usize| (0..i).filter(|j| meet(&used[i].1, &used[*j].1)).collect();
        Places(used.iter().enumerate().map(|(i, (buffer, _))| Place { buffer: *buffer, beside: beside(i) }).collect())
    }

    /// Writes where each begins, given its bytes, by its number among the function's buffers; and tells how many bytes all of them need: `None` if their
    /// number does not fit a word.
    pub fn lay_out(&self, bytes: &[usize], starts: &mut [usize]) -> Option<usize> {
        let mut all = 0;
        for place in &self.0 {
            let end = |starts: &[usize], buffer: usize| starts[buffer].checked_add(bytes[buffer].checked_next_multiple_of(LINE)?);
            let first = place.beside.iter().try_fold(0, |first, j| Some(end(starts, self.0[*j].buffer)?.max(first)))?;
            starts[place.buffer] = first;
            all = all.max(end(starts, place.buffer)?);
        }
        Some(all)
    }
}

/// What one task does, below the outermost `par` loops.
fn task(mut body: &[Stmt]) -> &[Stmt] {
    while let [Stmt::For(l)] = body
        && l.kind == LoopKind::Par
    {
        body = &l.body;
    }
    body
}

/// Whether a statement reads or writes a buffer.
fn names(s: &Stmt, b: &Buffer) -> bool {
    let mut found = false;
    let mut look = |v: &Value| v.visit(&mut |v| found |= matches!(v, Value::Load(a) if a.buffer == b.name));
    let mut stored = false;
    s.visit(&mut |s| match s {
        Stmt::Set { value, .. } => look(value),
        Stmt::Store { to, parts, .. } => {
            stored |= to.buffer == b.name;
            parts.iter().for_each(&mut look);
        }
        _ => {}
    });
    found || stored
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` has done its work when `c` begins, `b` is in use all the time; nothing uses `d`.
    #[test]
    fn buffers_make_way_for_others() {
        let text = "func t f32 stage panel {
  buffer x: input f32[8]
  buffer y: output f32[8]
  buffer a: scratch f32[20]
  buffer b: scratch f32[8]
  buffer c: scratch f32[40]
  buffer d: scratch f32[8]
  reg r: f32
  run {
    par for i in 0..8 {
      r = x[i]
      b[i] = r
      a[i] = b[i]
      b[i] = a[i]
      when 0 <= i < 4 {
        c[i] = b[i]
        y[i] = c[i] + b[i]
      }
    }
  }
}
";
        let func: Func = text.parse().unwrap();
        let mut starts = [usize::MAX; 6];
        let bytes: Vec<usize> = func.buffers.iter().map(|b| b.dims[0].as_const().unwrap() as usize * 4).collect();
        // Lines: one for `b`, then two for `a`, in whose place `c` takes three.
        assert_eq!(Places::of(&func).lay_out(&bytes, &mut starts), Some(4 * LINE));
        assert_eq!(starts[2..5], [LINE, 0, LINE]);
        assert_eq!(starts[5], usize::MAX, "a buffer that nothing names needs no memory");
    }
}

//! Pass `lower`: only operations that code generation has are left.
//!
//! *Needs* any stage. *Leaves* no `tanh` and no `sigmoid` (see [`super::activation`]) and, if the target cannot fuse, no `fma`: the
//! product is rounded, then the sum. The interpreter runs the result, so that native code is compared with what the target really computes.
//!
//! ```text
//! acc = fma(v, wp[…], acc)        ⇒        acc = v * wp[…] + acc           without FMA
//! ```

use crate::Result;
use crate::ir::{BinOp, Func, Stmt, UnOp, Value};
use crate::plan::Plan;

/// Replaces operations that code generation lacks.
pub fn run(func: &Func, plan: &Plan) -> Result<Option<Func>> {
    let mut curves = false;
    let mut look = |v: &Value| curves |= matches!(v, Value::Un(UnOp::Tanh | UnOp::Sigmoid, _));
    func.prepare.iter().chain(&func.run).for_each(|s| s.visit_values(&mut look));
    if !curves && plan.fma {
        return Ok(None);
    }
    let mut out = super::activation::run(func);
    if !plan.fma {
        for section in [&mut out.prepare, &mut out.run] {
            *section = std::mem::take(section).into_iter().map(split).collect();
        }
    }
    Ok(Some(out))
}

fn split(mut s: Stmt) -> Stmt {
    let apart = |v: Value| {
        v.map(&mut |v| match v {
            Value::Fma(abc) => {
                let [a, b, c] = *abc;
                Value::bin(BinOp::Add, Value::bin(BinOp::Mul, a, b), c)
            }
            v => v,
        })
    };
    match &mut s {
        Stmt::Set { value, .. } => *value = apart(std::mem::replace(value, Value::Const(0.0))),
        Stmt::Store { parts, .. } => parts.iter_mut().for_each(|v| *v = apart(std::mem::replace(v, Value::Const(0.0)))),
        _ => {}
    }
    if let Some(body) = s.body_mut() {
        *body = std::mem::take(body).into_iter().map(split).collect();
    }
    s
}

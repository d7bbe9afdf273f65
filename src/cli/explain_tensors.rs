//! Values for `explain`: .npy files, and two fills that need none.

use ndarray::ArrayD;
use ndarray_npy::ReadNpyExt;
use polyphase::{Error, Kind, Result};
use std::fs::File;

/// More values than this are not looked at one by one.
const MOST: usize = 1 << 28;

/// Values, or how to make them.
pub struct Tensor {
    /// The shape, if it came from a file.
    pub shape: Option<Vec<usize>>,
    values: Fill,
}

enum Fill {
    Ones,
    Count,
    Given(Vec<f64>),
}

/// Reads a .npy file of f32 or f64, or takes `ones` or `count` for what they say.
///
/// # Errors
/// [`Kind::Io`] for files that cannot be read.
pub fn read(source: &str) -> Result<Tensor> {
    match source {
        "ones" => return Ok(Tensor { shape: None, values: Fill::Ones }),
        "count" => return Ok(Tensor { shape: None, values: Fill::Count }),
        _ => {}
    }
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(
            Kind::Io,
            format!("'{}' cannot be read: {why}; a .npy file of f32 or f64, `ones` or `count` are legal", source.escape_debug()),
        )
    };
    let open = || File::open(source).map_err(|e| failed(&e));
    let array = match ArrayD::<f32>::read_npy(open()?) {
        Ok(a) => a.mapv(f64::from),
        Err(_) => ArrayD::<f64>::read_npy(open()?).map_err(|e| failed(&e))?,
    };
    if array.ndim() == 0 {
        return Err(failed(&"it has no dimensions"));
    }
    Ok(Tensor { shape: Some(array.shape().to_vec()), values: Fill::Given(array.iter().copied().collect()) })
}

impl Tensor {
    /// The values, in the order of memory.
    ///
    /// # Errors
    /// [`Kind::Tensor`] if a file has another shape (a flat one of the right length will do).
    pub fn filled(self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let count = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
        if count > MOST {
            return Err(Error::new(Kind::Tensor, format!("the {name} of shape {shape:?} has {count} values; up to {MOST} are legal here")));
        }
        match (self.values, self.shape) {
            (Fill::Ones, _) => Ok(vec![1.0; count]),
            (Fill::Count, _) => Ok((1..=count).map(|v| v as f64).collect()),
            (Fill::Given(v), Some(s)) if s == shape || (s.len() == 1 && v.len() == count) => Ok(v),
            (Fill::Given(_), s) => {
                Err(Error::new(Kind::Tensor, format!("the {name} has shape {:?}; this layer needs {shape:?}", s.unwrap_or_default())))
            }
        }
    }
}

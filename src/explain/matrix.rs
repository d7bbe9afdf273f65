//! The convolution matrix `C` and its transpose, for layers small enough to look at.
//!
//! A convolution with this kernel, stride and padding takes the large image to the small one: `small = C · large`, both flattened channel by channel.
//! The transposed convolution is the product with the transposed matrix, `y = Cᵀ · x`, which is where its name comes from; it is not the inverse.
//! `C` has a row per input element of the transposed convolution and a column per output element. Each entry is one weight or nothing.
//!
//! ```
//! use polyphase::{Deconv, explain::matrix};
//! let layer: Deconv = "1d n1 1x2 -> 1 k3 s2".parse()?;
//! let m = matrix::matrix(&layer, None)?;
//! assert_eq!(m.c, [[Some(0), Some(1), Some(2), None, None], [None, None, Some(0), Some(1), Some(2)]]);
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::facts::Sizes;
use crate::{Deconv, Error, Kind, Merge, Result};
use serde::Serialize;

/// Most rows or columns.
pub const MOST: usize = 64;

/// The matrix of one item of the batch, without bias and activation.
#[derive(Debug, Clone, Serialize)]
pub struct Matrix {
    /// Rows: input channels, then input positions.
    pub rows: usize,
    /// Columns: output channels, then output positions.
    pub columns: usize,
    /// Each entry's weight, as position in the flattened weight tensor.
    pub c: Vec<Vec<Option<usize>>>,
    /// The transpose of that.
    pub transpose: Vec<Vec<Option<usize>>>,
    /// The same with numbers, if weights were given; 0 where there is no weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub c_values: Option<Vec<Vec<f64>>>,
    /// The transpose with numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transpose_values: Option<Vec<Vec<f64>>>,
    /// Entries that are weights.
    pub entries: usize,
    /// Entries that are zero.
    pub zeros: usize,
}

/// The matrix of a small layer.
///
/// # Errors
/// [`Kind::Problem`] if it has more than 64 rows or columns, or if the overlap is not summed; [`Kind::Tensor`] for weights of the wrong length.
pub fn matrix(p: &Deconv, weight: Option<&[f64]>) -> Result<Matrix> {
    if p.merge != Merge::Sum {
        return Err(Error::new(Kind::Problem, "only overlaps that are summed are a matrix product; this layer merges by mean or max"));
    }
    let sizes = Sizes::of(p)?;
    let size = |channels: usize, extents: &[usize]| extents.iter().fold(channels, |n, e| n.saturating_mul(*e));
    let (rows, columns) = (size(p.c_in, &sizes.input), size(p.c_out, &sizes.output));
    if rows > MOST || columns > MOST {
        let message = format!("the convolution matrix has {rows} rows and {columns} columns; up to {MOST} of each are printed");
        return Err(Error::new(Kind::Problem, format!("{message}, as for `2d n1 1x2x2 -> 1 k3 s2 p1`")));
    }
    let needed: usize = p.weight_shape().iter().fold(1, |n, d| n.saturating_mul(*d));
    if let Some(w) = weight.filter(|w| w.len() != needed) {
        return Err(Error::new(Kind::Tensor, format!("the weight has {} values; shape {:?} needs {needed}", w.len(), p.weight_shape())));
    }
    let c: Vec<Vec<Option<usize>>> = (0..rows).map(|r| (0..columns).map(|o| entry(p, &sizes, r, o)).collect()).collect();
    let transpose: Vec<Vec<Option<usize>>> = (0..columns).map(|o| c.iter().map(|row| row[o]).collect()).collect();
    let numbers = |m: &[Vec<Option<usize>>]| -> Option<Vec<Vec<f64>>> {
        let w = weight?;
        Some(m.iter().map(|row| row.iter().map(|e| e.map_or(0.0, |i| w[i])).collect()).collect())
    };
    let entries = c.iter().flatten().filter(|e| e.is_some()).count();
    Ok(Matrix {
        rows,
        columns,
        c_values: numbers(&c),
        transpose_values: numbers(&transpose),
        entries,
        zeros: rows * columns - entries,
        c,
        transpose,
    })
}

/// The weight that takes input element `row` to output element `column`.
fn entry(p: &Deconv, sizes: &Sizes, row: usize, column: usize) -> Option<usize> {
    let (mut row, mut column) = (row, column);
    let (mut tap, mut scale) = (0, 1);
    for a in (0..p.rank()).rev() {
        let (i, o) = (row % sizes.input[a], column % sizes.output[a]);
        (row, column) = (row / sizes.input[a], column / sizes.output[a]);
        let at = o as i64 + p.pad_begin[a] - (p.stride[a] * i) as i64;
        let (d, k) = (p.dilation[a] as i64, p.kernel[a] as i64);
        if at % d != 0 || !(0..k).contains(&(at / d)) {
            return None;
        }
        tap += (at / d) as usize * scale;
        scale *= p.kernel[a];
    }
    let (icg, ocg) = (p.c_in / p.groups, p.c_out / p.groups);
    (row / icg == column / ocg).then(|| (row * ocg + column % ocg) * scale + tap)
}

//! What `run` is given: views of plain slices or of ndarray arrays, with the shape if it is known. Making a view allocates nothing.

use crate::ir::Elem;
use crate::{Error, Kind, Result};
use ndarray::{ArrayBase, Data, DataMut, Dimension};
use std::marker::PhantomData;

/// Most dimensions of a tensor: batch, channels and three spatial axes.
pub(super) const MAX_RANK: usize = 5;

/// An element type of tensors: `f32` or `f64`.
pub trait Element: Copy + Send + Sync + Into<f64> + 'static + crate::interp::Real {}
impl Element for f32 {}
impl Element for f64 {}

/// Extents and strides (in elements), outermost first, without allocation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub rank: usize,
    pub dims: [usize; MAX_RANK],
    pub strides: [isize; MAX_RANK],
}

impl Shape {
    fn of(dims: &[usize], strides: &[isize]) -> Shape {
        let mut s = Shape { rank: dims.len(), dims: [0; MAX_RANK], strides: [0; MAX_RANK] };
        for (i, (d, t)) in dims.iter().zip(strides).enumerate().take(MAX_RANK) {
            (s.dims[i], s.strides[i]) = (*d, *t);
        }
        s
    }
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank.min(MAX_RANK)]
    }
    /// Whether elements lie one after the other in the order of the dimensions.
    pub fn dense(&self) -> bool {
        let mut expected = 1isize;
        let strides = &self.strides[..self.rank.min(MAX_RANK)];
        if self.dims().contains(&0) {
            return true;
        }
        self.dims().iter().zip(strides).rev().all(|(d, s)| {
            let ok = *d == 1 || *s == expected;
            expected *= *d as isize;
            ok
        })
    }
}

/// Elements to read: from `&[T]`, `&Vec<T>`, `&[T; N]` or `&ArrayBase<…>`.
#[derive(Clone, Copy)]
pub struct TensorView<'a, T> {
    pub(super) at: *const T,
    pub(super) len: usize,
    pub(super) shape: Option<Shape>,
    marker: PhantomData<&'a [T]>,
}

/// Elements to write: from `&mut [T]`, `&mut Vec<T>`, `&mut [T; N]` or `&mut ArrayBase<…>`.
pub struct TensorViewMut<'a, T> {
    pub(super) at: *mut T,
    pub(super) len: usize,
    pub(super) shape: Option<Shape>,
    marker: PhantomData<&'a mut [T]>,
}

impl<'a, T> From<&'a [T]> for TensorView<'a, T> {
    fn from(s: &'a [T]) -> Self {
        TensorView { at: s.as_ptr(), len: s.len(), shape: None, marker: PhantomData }
    }
}
impl<'a, T> From<&'a Vec<T>> for TensorView<'a, T> {
    fn from(s: &'a Vec<T>) -> Self {
        s.as_slice().into()
    }
}
impl<'a, T, const N: usize> From<&'a [T; N]> for TensorView<'a, T> {
    fn from(s: &'a [T; N]) -> Self {
        s.as_slice().into()
    }
}
impl<'a, T, S: Data<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for TensorView<'a, T> {
    fn from(a: &'a ArrayBase<S, D>) -> Self {
        TensorView { at: a.as_ptr(), len: a.len(), shape: Some(Shape::of(a.shape(), a.strides())), marker: PhantomData }
    }
}
impl<'a, T> From<&'a mut [T]> for TensorViewMut<'a, T> {
    fn from(s: &'a mut [T]) -> Self {
        TensorViewMut { at: s.as_mut_ptr(), len: s.len(), shape: None, marker: PhantomData }
    }
}
impl<'a, T> From<&'a mut Vec<T>> for TensorViewMut<'a, T> {
    fn from(s: &'a mut Vec<T>) -> Self {
        s.as_mut_slice().into()
    }
}
impl<'a, T, const N: usize> From<&'a mut [T; N]> for TensorViewMut<'a, T> {
    fn from(s: &'a mut [T; N]) -> Self {
        s.as_mut_slice().into()
    }
}
impl<'a, T, S: DataMut<Elem = T>, D: Dimension> From<&'a mut ArrayBase<S, D>> for TensorViewMut<'a, T> {
    fn from(a: &'a mut ArrayBase<S, D>) -> Self {
        let shape = Some(Shape::of(a.shape(), a.strides()));
        TensorViewMut { len: a.len(), at: a.as_mut_ptr(), shape, marker: PhantomData }
    }
}

impl<'a, T> TensorView<'a, T> {
    /// The elements as a slice.
    ///
    /// # Errors
    /// [`Kind::Tensor`] if it is an array whose elements do not lie one after the other.
    pub fn as_slice(&self, name: &str) -> Result<&'a [T]> {
        check_dense(name, self.shape.as_ref())?;
        // SAFETY: the view was made from a borrow of `len` elements at `at` that lives for 'a, and they are dense.
        Ok(unsafe { std::slice::from_raw_parts(self.at, self.len) })
    }
}

/// An error unless the elements lie one after the other.
pub(super) fn check_dense(name: &str, shape: Option<&Shape>) -> Result<()> {
    match shape {
        Some(s) if s.rank > MAX_RANK => {
            Err(Error::new(Kind::Tensor, format!("{name} has {} dimensions; at most {MAX_RANK} are legal", s.rank)))
        }
        Some(s) if !s.dense() => {
            let (dims, strides) = (s.dims(), &s.strides[..s.rank]);
            let message = format!(
                "{name} of shape {dims:?} has strides {strides:?}; its elements must lie one after the other (make a contiguous copy)"
            );
            Err(Error::new(Kind::Tensor, message))
        }
        _ => Ok(()),
    }
}

/// The element type as the IR names it.
pub(super) fn elem_of<T: Element>() -> Elem {
    T::ELEM
}

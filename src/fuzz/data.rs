//! The tensors of a case, and output memory between guards.
//!
//! *Needs* a legal [`Case`]; *leaves* filled tensors in f32 or f64. Tensors start at an element that is not aligned to a vector, and
//! what stands before and after them must never show: NaN around inputs, a pattern that must survive around outputs.

use super::{Case, Fill};
use crate::{Element, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Elements before and after a tensor: more than the widest vector and a row of phases.
const GUARD: usize = 80;
/// What guards of outputs hold.
const PATTERN: f64 = 12345.6875;

/// A tensor within a larger piece of memory.
pub struct Guarded<T> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Element> Guarded<T> {
    /// Memory for an output of `len` elements, which are NaN, in a pattern.
    pub fn output(len: usize, seed: u64) -> Self {
        let mut g = Self::new(len, seed, PATTERN);
        g.slice_mut().fill(T::from_f64(f64::NAN));
        g
    }

    /// A copy of an input, between NaN.
    fn input(values: impl ExactSizeIterator<Item = f64>, seed: u64) -> Self {
        let mut g = Self::new(values.len(), seed, f64::NAN);
        g.slice_mut().iter_mut().zip(values).for_each(|(to, v)| *to = T::from_f64(v));
        g
    }

    fn new(len: usize, seed: u64, around: f64) -> Self {
        let start = GUARD + seed as usize % 5;
        Guarded { memory: vec![T::from_f64(around); start + len + GUARD], start, len }
    }

    pub fn slice(&self) -> &[T] {
        &self.memory[self.start..][..self.len]
    }

    pub fn slice_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..][..self.len]
    }

    /// How far before (negative) or after the output something was written that is none of it.
    pub fn breach(&self) -> Option<isize> {
        let changed = |v: &T| v.to_f64() != PATTERN;
        let before = self.memory[..self.start].iter().rposition(changed).map(|i| i as isize - self.start as isize);
        let end = self.start + self.len;
        before.or_else(|| self.memory[end..].iter().position(changed).map(|i| i as isize + 1))
    }
}

/// Input, weight and bias of a case.
pub struct Data<T> {
    pub batch: usize,
    pub spatial: Vec<usize>,
    pub x: Guarded<T>,
    pub w: Vec<T>,
    pub bias: Option<Vec<T>>,
    /// The shape of the output.
    pub out: Vec<usize>,
}

impl<T: Element> Data<T> {
    pub fn new(case: &Case) -> Result<Self> {
        let (batch, spatial) = case.sizes()?;
        let p = &case.problem;
        let (input, out) = (p.input_shape(batch, &spatial)?, p.output_shape(batch, &spatial)?);
        let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
        // Special values in the inputs, in the weights, or in both: panels are legal with finite weights only.
        let special = if case.fill == Fill::Special { rng.random_range(1..=3) } else { 0 };
        let mut fill = |shape: &[usize], special: bool| -> Vec<f64> {
            (0..shape.iter().product()).map(|_| value::<T>(&mut rng, case.fill, special)).collect()
        };
        let w = fill(&p.weight_shape(), special & 2 != 0);
        let bias = p.bias.then(|| fill(&[p.c_out], false));
        let x = Guarded::input(fill(&input, special & 1 != 0).into_iter(), case.seed);
        let cast = |v: Vec<f64>| v.into_iter().map(T::from_f64).collect();
        Ok(Data { batch, spatial, x, w: cast(w), bias: bias.map(cast), out })
    }

    /// Elements of the output.
    pub fn outputs(&self) -> usize {
        self.out.iter().product()
    }
}

fn value<T: Element>(rng: &mut ChaCha8Rng, fill: Fill, special: bool) -> f64 {
    if fill == Fill::Integers {
        return f64::from(rng.random_range(-3i32..=3));
    }
    if special && rng.random_bool(0.04) {
        let denormal = if size_of::<T>() == 4 { f64::from(f32::from_bits(0x0001_2345)) } else { f64::from_bits(0x0001_2345_6789) };
        return [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, denormal, -denormal][rng.random_range(0..7)];
    }
    f64::from(rng.random_range(-1.0f32..1.0))
}

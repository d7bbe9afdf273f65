//! The oracle: the formula of [`crate::problem`] in f64, with no code in common with the compiler or the interpreter.
//!
//! Each product of an input pixel and a weight is added where the formula says it lands; inserted zeros do not exist here, so none
//! is ever multiplied. Only rows are laid out for speed: it checks layers of many GFLOP.
//!
//! ```
//! use polyphase::{Activation, Deconv, Elem, Extent, Layout, Merge, reference};
//! // [[2,4],[0,1]] by the kernel [[3,1],[1,5]], stride 1.
//! let problem = Deconv {
//!     batch: Extent::Fixed(1), input: vec![Extent::Fixed(2); 2], c_in: 1, c_out: 1, groups: 1, kernel: vec![2; 2], stride: vec![1; 2],
//!     dilation: vec![1; 2], pad_begin: vec![0; 2], pad_end: vec![0; 2], output_padding: vec![0; 2], bias: false,
//!     activation: Activation::None, merge: Merge::Sum, layout: Layout::ChannelsFirst, elem: Elem::F32,
//! };
//! let y = reference::deconv(&problem, 1, &[2, 2], &[2.0f32, 4.0, 0.0, 1.0], &[3.0f32, 1.0, 1.0, 5.0], None)?;
//! assert_eq!(y, [6.0, 14.0, 4.0, 2.0, 17.0, 21.0, 0.0, 1.0, 5.0]);
//! # Ok::<(), polyphase::Error>(())
//! ```

use crate::{Activation, Deconv, Error, Extent, Kind, Layout, Merge, Result};
use rayon::prelude::*;

/// The layer's output in f64, in the problem's layout. `batch` and `input` (one extent per spatial axis) stand for open extents and must
/// equal the fixed ones; `x` and `w` are dense, `x` in the problem's layout, `w` as `[c_in, c_out / groups, *kernel]`.
///
/// # Errors
/// [`Kind::Problem`] if an output extent is negative or sizes overflow; [`Kind::Tensor`] if a tensor or an extent does not fit the problem.
pub fn deconv<T>(problem: &Deconv, batch: usize, input: &[usize], x: &[T], w: &[T], bias: Option<&[T]>) -> Result<Vec<f64>>
where
    T: Into<f64> + Copy + Sync,
{
    let g = Geometry::new(problem, batch, input)?;
    let t = Tensors::new(problem, &g, x, w, bias, |v| v)?;
    Ok(g.compute(&t, problem.merge, problem.activation))
}

/// Per output the sum of `|x * w|` over all that lands there, plus `|bias|`, in the problem's layout: the scale of rounding errors.
/// A result computed in a type of precision `eps` is right if it is within `(error_bound_terms + 2) * eps * magnitude` of [`deconv`]'s before the activation.
///
/// # Errors
/// As [`deconv`].
pub fn magnitude<T>(problem: &Deconv, batch: usize, input: &[usize], x: &[T], w: &[T], bias: Option<&[T]>) -> Result<Vec<f64>>
where
    T: Into<f64> + Copy + Sync,
{
    let g = Geometry::new(problem, batch, input)?;
    let t = Tensors::new(problem, &g, x, w, bias, f64::abs)?;
    Ok(g.compute(&t, Merge::Sum, Activation::None))
}

/// The length of the longest reduction: the most taps that land on one output, times `c_in / groups`.
pub fn error_bound_terms(problem: &Deconv) -> usize {
    let taps = |a: usize| {
        // Taps that land together are those whose d*k agree modulo s: every (s / gcd(s, d))-th.
        let (s, d) = (problem.stride[a].max(1), problem.dilation[a]);
        let most = problem.kernel[a].div_ceil(s / gcd(s, d));
        match problem.input[a] {
            Extent::Fixed(n) => most.min(n),
            Extent::Open(_) => most,
        }
    };
    (0..problem.rank()).map(taps).fold(problem.c_in / problem.groups.max(1), usize::saturating_mul)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One spatial axis.
#[derive(Clone, Copy)]
struct Axis {
    input: usize,
    output: usize,
    kernel: usize,
    stride: i64,
    dilation: i64,
    pad: i64,
}

impl Axis {
    /// Where input `i` lands through tap `k`; it may lie outside the output.
    fn lands(&self, i: usize, k: usize) -> i64 {
        self.stride * i as i64 - self.pad + self.dilation * k as i64
    }
    /// The `j` in `0..n` for which `start + step * j` lies inside the output.
    fn inside(&self, start: i64, step: i64, n: usize) -> std::ops::Range<usize> {
        let ceil = |v: i64| ((v + step - 1).div_euclid(step)).clamp(0, n as i64) as usize;
        let (lo, hi) = (ceil(-start), ceil(self.output as i64 - start));
        lo..hi.max(lo)
    }
}

/// Elements `from..to` of a row that land inside the output row, the first of them at `first`.
struct Span {
    from: usize,
    to: usize,
    first: usize,
}

/// Sizes of one call; always three axes, those that the problem lacks have extent 1.
struct Geometry {
    batch: usize,
    c_in: usize,
    c_out: usize,
    groups: usize,
    axes: [Axis; 3],
    layout: Layout,
}

fn product(what: &str, sizes: impl IntoIterator<Item = usize>) -> Result<usize> {
    let sizes: Vec<usize> = sizes.into_iter().collect();
    // An empty axis must not hide that the others overflow: their product is formed elsewhere.
    let full = sizes.iter().try_fold(1usize, |n, &s| n.checked_mul(s.max(1))).filter(|n| *n <= isize::MAX as usize / 8);
    match full {
        Some(n) => Ok(if sizes.contains(&0) { 0 } else { n }),
        None => Err(Error::new(Kind::Problem, format!("the {what} of extents {sizes:?} exceeds memory"))),
    }
}

fn agrees(what: &str, declared: &Extent, given: usize) -> Result<()> {
    match declared {
        Extent::Fixed(n) if *n != given => Err(Error::new(Kind::Tensor, format!("the {what} is {given}; the problem says {n}"))),
        _ => Ok(()),
    }
}

impl Geometry {
    fn new(p: &Deconv, batch: usize, input: &[usize]) -> Result<Self> {
        if input.len() != p.rank() || !(1..=3).contains(&p.rank()) {
            return Err(Error::new(
                Kind::Tensor,
                format!("{} input extents; the problem has {} axes, and 1 to 3 are legal", input.len(), p.rank()),
            ));
        }
        agrees("batch", &p.batch, batch)?;
        let mut axes = [Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 }; 3];
        for a in 0..p.rank() {
            agrees(&format!("input extent of axis {a}"), &p.input[a], input[a])?;
            axes[3 - p.rank() + a] = Self::axis(p, a, input[a])?;
        }
        if p.groups == 0 || !p.c_in.is_multiple_of(p.groups) || !p.c_out.is_multiple_of(p.groups) {
            return Err(Error::new(
                Kind::Problem,
                format!("{} and {} channels in {} groups; both must be divisible by it", p.c_in, p.c_out, p.groups),
            ));
        }
        Ok(Geometry { batch, c_in: p.c_in, c_out: p.c_out, groups: p.groups, axes, layout: p.layout })
    }

    fn axis(p: &Deconv, a: usize, input: usize) -> Result<Axis> {
        let (s, d, k) = (p.stride[a], p.dilation[a], p.kernel[a]);
        if s == 0 || d == 0 || k == 0 {
            return Err(Error::new(Kind::Problem, format!("axis {a} has stride {s}, dilation {d}, kernel {k}; each must be at least 1")));
        }
        let wide = |v: usize| v as i128;
        let (begin, end) = (p.pad_begin[a], p.pad_end[a]);
        let out =
            wide(s) * (wide(input) - 1) + wide(d) * (wide(k) - 1) + 1 + wide(p.output_padding[a]) - i128::from(begin) - i128::from(end);
        // Positions stay far from the ends of i64, so that the arithmetic on them cannot overflow.
        let limit = 1i128 << 60;
        let reach = wide(s) * wide(input) + wide(d) * wide(k) + i128::from(begin).abs();
        if !(0..limit).contains(&out) || reach >= limit {
            return Err(Error::new(
                Kind::Problem,
                format!("axis {a} has an output extent of {out}; it must be at least 0 and fit in memory"),
            ));
        }
        Ok(Axis { input, output: out as usize, kernel: k, stride: s as i64, dilation: d as i64, pad: begin })
    }

    fn inputs(&self) -> usize {
        self.axes.iter().map(|a| a.input).product()
    }
    fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.kernel).product()
    }
    fn outputs(&self) -> usize {
        self.axes.iter().map(|a| a.output).product()
    }

    fn compute(&self, t: &Tensors, merge: Merge, activation: Activation) -> Vec<f64> {
        let plane = self.outputs();
        let mut y = vec![0.0; self.batch * self.c_out * plane];
        if y.is_empty() {
            return y;
        }
        let count = if merge == Merge::Sum { Vec::new() } else { self.landings() };
        y.par_chunks_mut(plane).enumerate().for_each(|(i, out)| {
            let (n, oc) = (i / self.c_out, i % self.c_out);
            match merge {
                Merge::Sum => self.sum(t, n, oc, out),
                Merge::Mean => {
                    self.sum(t, n, oc, out);
                    out.iter_mut().zip(&count).filter(|(_, c)| **c > 0).for_each(|(v, c)| *v /= f64::from(*c));
                }
                Merge::Max => self.max(t, n, oc, &count, out),
            }
            let bias = t.bias.get(oc).copied();
            for v in out.iter_mut() {
                *v = activate(activation, bias.map_or(*v, |b| *v + b));
            }
        });
        match self.layout {
            Layout::ChannelsFirst => y,
            Layout::ChannelsLast => transpose(&y, self.batch, self.c_out, plane),
        }
    }

    /// Planes of the input and rows of the weights that meet in output channel `oc` of batch item `n`.
    fn channels<'t>(&self, t: &'t Tensors, n: usize, oc: usize) -> impl Iterator<Item = (&'t [f64], &'t [f64])> {
        let (per_in, per_out) = (self.c_in / self.groups, self.c_out / self.groups);
        let (inputs, taps, c_in) = (self.inputs(), self.taps(), self.c_in);
        let first = oc / per_out * per_in;
        (first..first + per_in).map(move |ic| {
            let w = (ic * per_out + oc % per_out) * taps;
            (&t.x[(n * c_in + ic) * inputs..][..inputs], &t.w[w..][..taps])
        })
    }

    /// Adds every product where it lands.
    fn sum(&self, t: &Tensors, n: usize, oc: usize, out: &mut [f64]) {
        let axis = &self.axes[2];
        // The longer of the two rows, input or kernel, runs in the inner loop; the other's elements scale it.
        let along_input = axis.input >= axis.kernel;
        let (step, outer, inner) =
            if along_input { (axis.stride, axis.kernel, axis.input) } else { (axis.dilation, axis.input, axis.kernel) };
        let spans: Vec<Span> = (0..outer)
            .map(|j| {
                let start = if along_input { axis.lands(0, j) } else { axis.lands(j, 0) };
                let range = axis.inside(start, step, inner);
                Span { from: range.start, to: range.end, first: (start + step * range.start as i64).max(0) as usize }
            })
            .collect();
        for (x, w) in self.channels(t, n, oc) {
            self.rows(|input, tap, output| {
                let (xs, ws) = (&x[input..][..axis.input], &w[tap..][..axis.kernel]);
                let row = &mut out[output..][..axis.output];
                let (scales, values) = if along_input { (ws, xs) } else { (xs, ws) };
                for (&a, span) in scales.iter().zip(&spans) {
                    if span.from < span.to {
                        add_scaled(&mut row[span.first..], step as usize, a, &values[span.from..span.to]);
                    }
                }
            });
        }
    }

    /// Calls `f` with the starts of an input row, a kernel row and the output row on which they land, for each such triple.
    fn rows(&self, mut f: impl FnMut(usize, usize, usize)) {
        let [z, y, x] = &self.axes;
        for (kz, ky) in (0..z.kernel).flat_map(|kz| (0..y.kernel).map(move |ky| (kz, ky))) {
            let iys = y.inside(y.lands(0, ky), y.stride, y.input);
            for iz in z.inside(z.lands(0, kz), z.stride, z.input) {
                for iy in iys.clone() {
                    let row = z.lands(iz, kz) as usize * y.output + y.lands(iy, ky) as usize;
                    f((iz * y.input + iy) * x.input, (kz * y.kernel + ky) * x.kernel, row * x.output);
                }
            }
        }
    }

    /// Calls `f` with the tap, the input pixel and the output of each patch value that lands inside.
    fn patches(&self, mut f: impl FnMut(usize, usize, usize)) {
        let x = &self.axes[2];
        self.rows(|input, tap, output| {
            for k in 0..x.kernel {
                for i in x.inside(x.lands(0, k), x.stride, x.input) {
                    f(tap + k, input + i, output + x.lands(i, k) as usize);
                }
            }
        });
    }

    /// How many patches land on each output.
    fn landings(&self) -> Vec<u32> {
        let mut count = vec![0; self.outputs()];
        self.patches(|_, _, o| count[o] += 1);
        count
    }

    /// The largest patch value on each output; NaN if one is, 0 where none lands.
    fn max(&self, t: &Tensors, n: usize, oc: usize, count: &[u32], out: &mut [f64]) {
        let inputs = self.inputs();
        let mut patch = vec![0.0; self.taps() * inputs];
        for (x, w) in self.channels(t, n, oc) {
            for (row, &w) in patch.chunks_mut(inputs.max(1)).zip(w) {
                row.iter_mut().zip(x).for_each(|(p, x)| *p += w * x);
            }
        }
        out.fill(f64::NEG_INFINITY);
        self.patches(|tap, i, o| {
            let v = patch[tap * inputs + i];
            if v > out[o] || v.is_nan() {
                out[o] = v;
            }
        });
        out.iter_mut().zip(count).filter(|(_, c)| **c == 0).for_each(|(v, _)| *v = 0.0);
    }
}

/// `row[step * j] += a * v[j]`.
#[inline]
fn add_scaled(row: &mut [f64], step: usize, a: f64, v: &[f64]) {
    if step == 1 {
        row.iter_mut().zip(v).for_each(|(o, v)| *o += a * v);
    } else {
        row.chunks_mut(step).zip(v).for_each(|(o, v)| o[0] += a * v);
    }
}

fn activate(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::None => v,
        Activation::Relu if v < 0.0 => 0.0,
        Activation::Relu => v,
        Activation::LeakyRelu(slope) => {
            if v > 0.0 {
                v
            } else {
                slope * v
            }
        }
        Activation::Clamp(lo, hi) => {
            let v = if v < lo { lo } else { v };
            if v > hi { hi } else { v }
        }
        Activation::Tanh => v.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-v).exp()),
    }
}

/// `[n, rows, columns]` to `[n, columns, rows]`.
fn transpose(data: &[f64], n: usize, rows: usize, columns: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(data.len());
    for b in 0..n {
        for c in 0..columns {
            out.extend((0..rows).map(|r| data[(b * rows + r) * columns + c]));
        }
    }
    out
}

/// The operands in f64, `x` channels-first, every element passed through a function.
struct Tensors {
    x: Vec<f64>,
    w: Vec<f64>,
    bias: Vec<f64>,
}

impl Tensors {
    fn new<T>(p: &Deconv, g: &Geometry, x: &[T], w: &[T], bias: Option<&[T]>, f: impl Fn(f64) -> f64) -> Result<Self>
    where
        T: Into<f64> + Copy,
    {
        let [az, ay, ax] = g.axes;
        product("output", [g.batch, g.c_out, az.output, ay.output, ax.output])?;
        let x_len = product("input", [g.batch, g.c_in, az.input, ay.input, ax.input])?;
        let w_len = product("weight", [g.c_in, g.c_out / g.groups, az.kernel, ay.kernel, ax.kernel])?;
        let fits = |what: &str, have: usize, want: usize| match have == want {
            true => Ok(()),
            false => Err(Error::new(Kind::Tensor, format!("the {what} has {have} elements; the problem wants {want}"))),
        };
        fits("input", x.len(), x_len)?;
        fits("weight", w.len(), w_len)?;
        fits("bias", bias.map_or(0, <[T]>::len), if p.bias { g.c_out } else { 0 })?;
        let wide = |v: &[T]| v.iter().map(|v| f((*v).into())).collect::<Vec<f64>>();
        let x = match p.layout {
            Layout::ChannelsFirst => wide(x),
            Layout::ChannelsLast => transpose(&wide(x), g.batch, g.inputs(), g.c_in),
        };
        Ok(Tensors { x, w: wide(w), bias: bias.map(wide).unwrap_or_default() })
    }
}

//! Toom-Cook (Winograd) convolution: `m` outputs of a filter with `r` taps from `m + r - 1` products.
//!
//! With points `a_0 … a_{n-2}` and infinity, `n = m + r - 1`, the outputs `y[j] = Σ_k g[k] d[j + k]` are
//!
//! ```text
//! y = A ((G g) ⊙ (B d))      A[j][i] = a_i^j        G[i][k] = a_i^k / f_i,  f_i = Π_{l≠i} (a_i - a_l)
//!                            B[i]    = coefficients of Π_{l≠i} (x - a_l)
//! ```
//!
//! and infinity contributes `A[m-1][n-1] = 1`, `G[n-1][r-1] = 1`, `B[n-1] = Π_l (x - a_l)`. Multiplying polynomials means to evaluate them at points,
//! to multiply the values and to interpolate; the above is that, transposed. All of it is computed in rational numbers; [`ToomCook::is_exact`] is the proof.
//!
//! With one output, or one tap, the direct sum has as few products, and its matrices are ones and zeros.
//!
//! Source: A. L. Toom 1963, S. A. Cook 1966; S. Winograd, *Arithmetic Complexity of Computations*, 1980; A. Lavin and S. Gray,
//! *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016.

use num_rational::Ratio;

/// An exact coefficient.
pub type Exact = Ratio<i64>;

/// The finite points for each number of products: infinity is one more. They are fractions whose powers and products are exact in `f32`, those with the least
/// [`ToomCook::mean_growth`] among multiples of an eighth that come in pairs `a, -a`, which share half of the additions (with up to four products: among those
/// that need no multiplication).
const POINTS: [&[(i64, i64)]; 8] = [
    &[],
    &[(0, 1)],
    &[(0, 1), (1, 1)],
    &[(0, 1), (1, 1), (-1, 1)],
    &[(3, 8), (-3, 8), (5, 4), (-5, 4)],
    &[(0, 1), (5, 8), (-5, 8), (3, 2), (-3, 2)],
    &[(1, 4), (-1, 4), (7, 8), (-7, 8), (7, 4), (-7, 4)],
    &[(0, 1), (1, 2), (-1, 2), (1, 1), (-1, 1), (2, 1), (-2, 1)],
];

/// The largest number of products for which there are points.
pub const MOST_PRODUCTS: usize = POINTS.len();

/// The three matrices of one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct ToomCook {
    /// Outputs per window.
    pub outputs: usize,
    /// Taps of the filter.
    pub taps: usize,
    /// `A`, `outputs x products`: from products to outputs.
    pub output: Vec<Vec<Exact>>,
    /// `G`, `products x taps`: from taps to factors.
    pub weight: Vec<Vec<Exact>>,
    /// `B`, `products x products`: from the pixels of a window to factors.
    pub input: Vec<Vec<Exact>>,
}

impl ToomCook {
    /// The algorithm for so many outputs and taps, each at least 1. `None` if there are not enough points.
    pub fn new(outputs: usize, taps: usize) -> Option<Self> {
        let products = outputs + taps - 1;
        if products > MOST_PRODUCTS {
            return None;
        }
        if outputs == 1 || taps == 1 {
            return Some(Self::direct(outputs, taps));
        }
        let points: Vec<Exact> = POINTS[products - 1].iter().map(|&(n, d)| Exact::new(n, d)).collect();
        Some(Self::at(&points, outputs, taps))
    }

    /// The algorithm at these points and infinity.
    fn at(points: &[Exact], outputs: usize, taps: usize) -> Self {
        let (zero, one) = (Exact::from(0), Exact::from(1));
        let powers = |a: Exact, n: usize| -> Vec<Exact> { (0..n).scan(one, |p, _| Some(std::mem::replace(p, *p * a))).collect() };
        let mut weight = Vec::new();
        let mut input = Vec::new();
        for (i, &a) in points.iter().enumerate() {
            let others = || points.iter().enumerate().filter(move |(l, _)| *l != i).map(|(_, p)| *p);
            let f = others().fold(one, |f, p| f * (a - p));
            weight.push(powers(a, taps).into_iter().map(|p| p / f).collect());
            let mut row = product(others());
            row.push(zero);
            input.push(row);
        }
        weight.push((0..taps).map(|k| if k + 1 == taps { one } else { zero }).collect());
        input.push(product(points.iter().copied()));
        let column: Vec<Vec<Exact>> = points.iter().map(|&a| powers(a, outputs)).collect();
        let at_infinity = |j: usize| if j + 1 == outputs { one } else { zero };
        let output = (0..outputs).map(|j| column.iter().map(|c| c[j]).chain([at_infinity(j)]).collect()).collect();
        let mut made = ToomCook { outputs, taps, output, weight, input };
        made.make_input_whole();
        made
    }

    /// One output or one tap: there is nothing to save, and nothing to transform.
    fn direct(outputs: usize, taps: usize) -> Self {
        let (zero, one) = (Exact::from(0), Exact::from(1));
        let unit = |n: usize| -> Vec<Vec<Exact>> { (0..n).map(|i| (0..n).map(|j| if i == j { one } else { zero }).collect()).collect() };
        let products = outputs + taps - 1;
        let output = if outputs == 1 { vec![vec![one; taps]] } else { unit(outputs) };
        let weight = if taps == 1 { vec![vec![one]; outputs] } else { unit(taps) };
        ToomCook { outputs, taps, output, weight, input: unit(products) }
    }

    /// How many products there are.
    pub fn products(&self) -> usize {
        self.outputs + self.taps - 1
    }

    /// Scales each product so that its row of `B` starts with a 1 and has whole coefficients, where there is such a factor, which `G` takes: no multiplications
    /// per window, more where weights are transformed, which happens once. Other rows end with a 1.
    fn make_input_whole(&mut self) {
        let one = Exact::from(1);
        for (b, g) in self.input.iter_mut().zip(&mut self.weight) {
            let Some(first) = b.iter().find(|v| **v != Exact::from(0)).copied() else { continue };
            let by = if b.iter().all(|v| (*v / first).is_integer()) { first } else { one };
            b.iter_mut().for_each(|v| *v /= by);
            g.iter_mut().for_each(|v| *v *= by);
        }
    }

    /// Whether the matrices compute the convolution: `Σ_i A[j][i] G[i][k] B[i][e]` is 1 where `e = j + k` and 0 elsewhere.
    pub fn is_exact(&self) -> bool {
        let n = self.products();
        let sum = |j: usize, k: usize, e: usize| (0..n).map(|i| self.output[j][i] * self.weight[i][k] * self.input[i][e]).sum::<Exact>();
        (0..self.outputs).all(|j| (0..self.taps).all(|k| (0..n).all(|e| sum(j, k, e) == Exact::from(i64::from(e == j + k)))))
    }

    /// How much larger than for a sum of products rounding may get, at worst: `max over j, k of Σ_i |A[j][i]| |G[i][k]| Σ_e |B[i][e]|`.
    pub fn growth(&self) -> f64 {
        let of = |j: usize, k: usize| -> f64 {
            (0..self.products()).map(|i| float(self.output[j][i]).abs() * float(self.weight[i][k]).abs() * norm(&self.input[i], 1)).sum()
        };
        (0..self.outputs).flat_map(|j| (0..self.taps).map(move |k| of(j, k))).fold(0.0, f64::max)
    }

    /// The same for independent data, root-mean-square over the outputs of a window, relative to the taps of a direct sum:
    /// `Σ_i A[j][i]² ‖G[i]‖² ‖B[i]‖²` against `r²`, as variances of partial sums.
    pub fn mean_growth(&self) -> f64 {
        let of = |j: usize| -> f64 {
            (0..self.products()).map(|i| float(self.output[j][i]).powi(2) * norm(&self.weight[i], 2) * norm(&self.input[i], 2)).sum()
        };
        let mean = (0..self.outputs).map(of).sum::<f64>() / self.outputs as f64;
        (mean / (self.taps * self.taps) as f64).sqrt()
    }
}

/// Whether a coefficient is a small integer over a small power of two: then products with small integers are exact in binary floating point.
pub fn is_dyadic(v: Exact) -> bool {
    v.denom().count_ones() == 1 && *v.denom() <= 64 && v.numer().abs() <= 64
}

/// The coefficient as a float; it is rounded once.
pub fn float(v: Exact) -> f64 {
    *v.numer() as f64 / *v.denom() as f64
}

/// `Σ |v|^p`.
fn norm(row: &[Exact], p: i32) -> f64 {
    row.iter().map(|v| float(*v).abs().powi(p)).sum()
}

/// The coefficients of `Π (x - a)`, lowest power first.
fn product(roots: impl Iterator<Item = Exact>) -> Vec<Exact> {
    roots.fold(vec![Exact::from(1)], |p, a| {
        let mut next = vec![Exact::from(0); p.len() + 1];
        for (i, c) in p.iter().enumerate() {
            next[i + 1] += *c;
            next[i] -= *c * a;
        }
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_exact() {
        for outputs in 1..MOST_PRODUCTS {
            for taps in 1..=MOST_PRODUCTS + 1 - outputs {
                let t = ToomCook::new(outputs, taps).expect("there are points");
                assert!(t.is_exact(), "F({outputs}, {taps}): {t:?}");
            }
        }
        assert_eq!(ToomCook::new(MOST_PRODUCTS, 2), None);
    }

    /// Of all pairs of eighths up to 3, and 0 where one point is left over.
    #[test]
    fn points_round_least_among_pairs_of_eighths() {
        let growth = |pairs: &[i64], outputs: usize| {
            let both = pairs.iter().flat_map(|&a| [Exact::new(a, 8), Exact::new(-a, 8)]);
            let points: Vec<Exact> = both.chain((outputs % 2 == 1).then(|| 0.into())).collect();
            ToomCook::at(&points, outputs, 2).mean_growth()
        };
        let twos: Vec<Vec<i64>> = (1..=24).flat_map(|a| (a + 1..=24).map(move |b| vec![a, b])).collect();
        let threes: Vec<Vec<i64>> = twos.iter().flat_map(|p| (p[1] + 1..=24).map(|c| [&p[..], &[c]].concat())).collect();
        for (outputs, pairs) in [(4, &twos), (5, &twos), (6, &threes), (7, &threes)] {
            let least = pairs.iter().map(|p| growth(p, outputs)).fold(f64::INFINITY, f64::min);
            let chosen = ToomCook::new(outputs, 2).expect("there are points").mean_growth();
            assert!(chosen < least * 1.000_001, "F({outputs}, 2): {chosen}, where {least} is possible");
        }
    }

    #[test]
    fn a_wrong_coefficient_is_noticed() {
        let mut t = ToomCook::new(3, 2).expect("there are points");
        t.weight[1][0] += Exact::new(1, 1 << 20);
        assert!(!t.is_exact());
    }

    #[test]
    fn three_outputs_of_two_taps_need_additions_and_halves_only() {
        let t = ToomCook::new(3, 2).expect("there are points");
        let whole = |rows: &[Vec<Exact>]| rows.iter().flatten().all(|v| [-1, 0, 1].contains(v.numer()) && *v.denom() == 1);
        assert!(whole(&t.input) && whole(&t.output), "{t:?}");
        assert!(t.weight.iter().flatten().all(|v| *v.denom() <= 2), "{t:?}");
        assert_eq!(t.growth(), 4.0);
    }
}

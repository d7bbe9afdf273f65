//! How much there is to compute: useful and zero-inserted multiplications, and the taps of each phase.
//!
//! Needs a validated [`Deconv`] and extents that [`Deconv::output_spatial`] accepts. Everything is counted, nothing estimated.
//!
//! ```
//! use polyphase::Deconv;
//! let layer = Deconv::torch2d(512, 256, [4, 4]).stride([2, 2]).padding([1, 1]).input([4, 4]).build()?;
//! assert_eq!(layer.flops_useful(1, &[4, 4]), 51_380_224);
//! assert_eq!(layer.flops_dense(1, &[4, 4]), 268_435_456);
//! assert_eq!(layer.phases(0)[1].taps, [1, 3]);
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::Deconv;

/// One phase of an axis: the outputs `o` with `(o + padding) % stride == residue`, and the taps that feed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseInfo {
    /// `(o + pad_begin) mod stride`.
    pub residue: usize,
    /// The taps `k` with `dilation * k ≡ residue (mod stride)`, ascending. None where nothing lands: those outputs are bias only.
    pub taps: Vec<usize>,
}

impl Deconv {
    /// The phases of an axis, one per residue, in the order of residues.
    pub fn phases(&self, axis: usize) -> Vec<PhaseInfo> {
        let (s, d) = (self.stride[axis], self.dilation[axis]);
        let mut phases: Vec<_> = (0..s).map(|residue| PhaseInfo { residue, taps: Vec::new() }).collect();
        for k in 0..self.kernel[axis] {
            phases[d * k % s].taps.push(k);
        }
        phases
    }

    /// The pairs `(i, k)` of an axis that land inside the output: `0 <= stride*i - padding + dilation*k < out`.
    pub fn useful_pairs(&self, axis: usize, input: usize) -> u128 {
        let n = |v: usize| v as i128;
        let (s, d, p) = (n(self.stride[axis]), n(self.dilation[axis]), i128::from(self.pad_begin[axis]));
        let out = self.output_formula(axis, input).max(0);
        // Counts the integers t in 0..count for which 0 <= step*t + at < out.
        let inside = |count: usize, step: i128, at: i128| -> u128 {
            let ceil = |v: i128| -((-v).div_euclid(step));
            let (lo, hi) = (ceil(-at).max(0), ceil(out - at).min(n(count)));
            (hi - lo).max(0) as u128
        };
        let k = self.kernel[axis];
        if k <= input { (0..k).map(|k| inside(input, s, d * n(k) - p)).sum() } else { (0..input).map(|i| inside(k, d, s * n(i) - p)).sum() }
    }

    /// Multiply-adds of one pair of positions: batch times channel pairs.
    fn channel_pairs(&self, batch: usize) -> u128 {
        [batch, self.c_in, self.c_out / self.groups].into_iter().fold(1u128, |n, v| n.saturating_mul(v as u128))
    }

    /// Multiply-adds whose result reaches an output, exactly.
    pub fn useful_macs(&self, batch: usize, spatial: &[usize]) -> u128 {
        let pairs = spatial.iter().enumerate().map(|(a, &i)| self.useful_pairs(a, i));
        pairs.fold(self.channel_pairs(batch), u128::saturating_mul)
    }

    /// Multiply-adds of the textbook method: zeros inserted, then a plain convolution over every output.
    pub fn dense_macs(&self, batch: usize, spatial: &[usize]) -> u128 {
        let per_axis = spatial.iter().enumerate().map(|(a, &i)| {
            let out = self.output_formula(a, i).max(0) as u128;
            out.saturating_mul(self.kernel[a] as u128)
        });
        per_axis.fold(self.channel_pairs(batch), u128::saturating_mul)
    }

    /// Two operations per useful multiply-add.
    pub fn flops_useful(&self, batch: usize, spatial: &[usize]) -> u128 {
        self.useful_macs(batch, spatial).saturating_mul(2)
    }

    /// Two operations per multiply-add of the textbook method.
    pub fn flops_dense(&self, batch: usize, spatial: &[usize]) -> u128 {
        self.dense_macs(batch, spatial).saturating_mul(2)
    }

    /// Bytes of input, output and weight together; each must move at least once.
    pub fn bytes_io(&self, batch: usize, spatial: &[usize]) -> u128 {
        let count = |first: &[usize], rest: &mut dyn Iterator<Item = u128>| {
            rest.fold(first.iter().fold(1u128, |n, &v| n.saturating_mul(v as u128)), u128::saturating_mul)
        };
        let input = count(&[batch, self.c_in], &mut spatial.iter().map(|&v| v as u128));
        let output = count(&[batch, self.c_out], &mut spatial.iter().enumerate().map(|(a, &v)| self.output_formula(a, v).max(0) as u128));
        let weight = count(&self.weight_shape(), &mut std::iter::empty());
        input.saturating_add(output).saturating_add(weight).saturating_mul(self.elem.bytes() as u128)
    }
}

//! Second step, order: multiply-adds that load the same vector come together.
//!
//! Phases whose windows are shifted against each other read the same pixels, for different taps. Tap by tap, a tile of eight phases of a 3-D layer
//! with k4 s2 loads 64 vectors for each 16 columns of a channel; 27 of them differ. Here the statements are put in order of what they load, so that
//! each vector is loaded once and leaves its register soon. The order in which an accumulator takes its terms stays, and with it every bit.
//!
//! Needs a block of nothing but multiply-adds, each into its own register. If what is loaded runs the same way along every accumulator's terms, as
//! pixels do along the taps of all phases, then every vector is loaded once; whatever cannot wait is loaded again.

use super::select::Key;
use super::tree::{Node, Val};
use rustc_hash::FxHashMap as HashMap;
use std::collections::VecDeque;

/// One multiply-add: a vector from memory times a scalar from memory.
struct Product {
    entry: usize,
    vector: Key,
    scalar: Key,
}

/// The statements in the order of what they load; `None` if there is nothing to gain.
pub(super) fn by_vector(nodes: &[Node], size: usize) -> Option<Vec<Node>> {
    let products: Vec<Product> = nodes.iter().map(|n| product(n, size)).collect::<Option<_>>()?;
    let mut left: HashMap<Key, usize> = HashMap::default();
    products.iter().for_each(|p| *left.entry(p.vector).or_default() += 1);
    if left.len() == products.len() {
        return None;
    }
    // The terms that each accumulator still waits for, in its order.
    let mut chains: Vec<(usize, VecDeque<usize>)> = Vec::new();
    for (i, p) in products.iter().enumerate() {
        match chains.iter_mut().find(|(entry, _)| *entry == p.entry) {
            Some((_, chain)) => chain.push_back(i),
            None => chains.push((p.entry, VecDeque::from([i]))),
        }
    }
    let mut order = Vec::with_capacity(products.len());
    while order.len() < products.len() {
        for i in next(&products, &chains, &left) {
            let (_, chain) = chains.iter_mut().find(|(entry, _)| *entry == products[i].entry).expect("every product has a chain");
            chain.pop_front();
            *left.get_mut(&products[i].vector).expect("counted above") -= 1;
            order.push(i);
        }
    }
    Some(order.into_iter().map(|i| nodes[i].clone()).collect())
}

/// The statements to come next: all that load one vector, if each is what its accumulator waits for, beside those of other such vectors that meet the
/// same scalars, scalar by scalar; or else those of the vector that most accumulators wait for.
fn next(products: &[Product], chains: &[(usize, VecDeque<usize>)], left: &HashMap<Key, usize>) -> Vec<usize> {
    let mut ready: Vec<(Key, Vec<usize>)> = Vec::new();
    for &i in chains.iter().filter_map(|(_, chain)| chain.front()) {
        match ready.iter_mut().find(|(vector, _)| *vector == products[i].vector) {
            Some((_, of)) => of.push(i),
            None => ready.push((products[i].vector, vec![i])),
        }
    }
    ready.iter_mut().for_each(|(_, of)| of.sort_by_key(|&i| products[i].scalar));
    let complete = |(vector, of): &&(Key, Vec<usize>)| left[vector] == of.len();
    let scalars = |of: &[usize]| of.iter().map(|&i| products[i].scalar).collect::<Vec<_>>();
    let Some((_, first)) = ready.iter().find(complete) else {
        return ready.into_iter().map(|(_, of)| of).max_by_key(Vec::len).expect("some accumulator waits");
    };
    let meet = scalars(first);
    let beside: Vec<&Vec<usize>> = ready.iter().filter(complete).map(|(_, of)| of).filter(|of| scalars(of) == meet).collect();
    (0..first.len()).flat_map(|k| beside.iter().map(move |of| of[k])).collect()
}

/// `acc = fma(vector, scalar, acc)`, the factors either way round.
fn product(n: &Node, size: usize) -> Option<Product> {
    let Node::Set { entry, value: Val::Fma(v) } = n else { return None };
    let (a, b) = match &**v {
        [Val::Load(a), Val::Load(b), Val::Reg(e)] if e == entry => (a, b),
        _ => return None,
    };
    let (vector, scalar) = if a.spread.is_some() { (a, b) } else { (b, a) };
    let dense = vector.spread.as_ref().is_some_and(|s| s.count > 1 && s.is_dense(size));
    (dense && scalar.spread.is_none()).then(|| Product { entry: *entry, vector: vector.key(), scalar: scalar.key() })
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Place, Spread, Stride};
    use super::*;

    fn load(buffer: usize, disp: i32, lanes: Option<usize>) -> Val {
        let spread = lanes.map(|count| Spread { count, step: 1, stride: Stride::Const(4), clip: None });
        Val::Load(Place { group: buffer, disp, buffer, spread })
    }

    /// Two phases of two taps, the second's window one further on, for `vectors` vectors of columns: pixel `q + phase - tap`.
    fn phases(vectors: usize) -> Vec<Node> {
        let mut out = Vec::new();
        for (tap, phase) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for v in 0..vectors {
                let entry = phase * vectors + v;
                let pixel = load(0, 64 * v as i32 + 4 * (phase as i32 - tap), Some(16));
                let weight = load(1, 8 * tap + 4 * phase as i32, None);
                out.push(Node::Set { entry, value: Val::Fma(Box::new([pixel, weight, Val::Reg(entry)])) });
            }
        }
        out
    }

    fn written(nodes: &[Node]) -> Vec<(usize, i32, i32)> {
        let of = |n: &Node| product(n, 4).map(|p| (p.entry, p.vector.1, p.scalar.1));
        nodes.iter().map(|n| of(n).expect("products only")).collect()
    }

    #[test]
    fn each_vector_is_loaded_once() {
        let ordered = by_vector(&phases(2), 4).expect("the middle vectors are loaded twice");
        // The last pixel for phase 1, the middle one for both, the first for phase 0; the two vectors of columns side by side.
        let expected = [(2, 4, 4), (3, 68, 4), (0, 0, 0), (1, 64, 0), (2, 0, 12), (3, 64, 12), (0, -4, 8), (1, 60, 8)];
        assert_eq!(written(&ordered), expected);
    }

    #[test]
    fn accumulators_keep_the_order_of_their_terms() {
        // The same vectors the other way round for one of two accumulators: they cannot both be loaded once.
        let at = |entry: usize, disp: i32| {
            let value = Val::Fma(Box::new([load(0, disp, Some(16)), load(1, disp + entry as i32, None), Val::Reg(entry)]));
            Node::Set { entry, value }
        };
        let nodes = [at(0, 0), at(0, 64), at(1, 64), at(1, 0)];
        let ordered = written(&by_vector(&nodes, 4).expect("both are loaded twice"));
        for entry in 0..2 {
            let terms = |of: &[(usize, i32, i32)]| of.iter().filter(|p| p.0 == entry).copied().collect::<Vec<_>>();
            assert_eq!(terms(&ordered), terms(&written(&nodes)));
        }
        assert_eq!(ordered.len(), nodes.len());
    }

    #[test]
    fn blocks_with_nothing_to_share_stay() {
        assert!(by_vector(&phases(1)[..2], 4).is_none());
        let mut other = phases(1);
        other.push(Node::Set { entry: 9, value: Val::Const(0.0) });
        assert!(by_vector(&other, 4).is_none());
    }
}

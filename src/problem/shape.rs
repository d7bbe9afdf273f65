//! Tensor shapes, and the extents that come at run time.
//!
//! Needs a validated [`Deconv`]. Shapes are those of the arrays that callers hold: `[n, c, *spatial]`, or `[n, *spatial, c]` with
//! channels last. Every run-time extent goes through [`Deconv::output_spatial`], which applies the same rules as validation.
//!
//! ```
//! use polyphase::Deconv;
//! let layer = Deconv::torch1d(80, 40, [16]).stride([8]).padding([4]).open_input().build()?;
//! assert_eq!(layer.output_shape(1, &[100])?, [1, 40, 800]);
//! assert_eq!(layer.shape_from_symbols(&[100])?, (1, vec![100]));
//! assert!(layer.output_shape(2, &[100]).is_err(), "the batch is fixed at 1");
//! assert_eq!(layer.fixed_at(&[100])?.open_spatial(), layer);
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::validate::{MAX_EXTENT, axis_name, per_axis, within};
use super::{Deconv, Extent, Layout};
use crate::error::{Error, Kind, Result};
use crate::ir::Name;

/// The symbol of an open batch.
pub(super) const BATCH: &str = "N";

/// The symbols of open spatial extents: `W`; `H W`; `D H W`.
pub(super) fn spatial_symbols(rank: usize) -> &'static [&'static str] {
    &["D", "H", "W"][3 - rank..]
}

fn tensor(message: String) -> Error {
    Error::new(Kind::Tensor, message)
}

impl Deconv {
    /// The names of the extents that come at run time, in the order in which their values are given: `N`, then spatial axes outermost first.
    pub fn symbols(&self) -> Vec<Name> {
        let open = |e: &Extent| match e {
            Extent::Open(s) => Some(*s),
            Extent::Fixed(_) => None,
        };
        std::iter::once(&self.batch).chain(&self.input).filter_map(open).collect()
    }

    /// Batch and spatial input extents, from the values of the symbols in the order of [`symbols`](Self::symbols).
    ///
    /// # Errors
    /// A wrong number of values, or extents for which there is no output.
    pub fn shape_from_symbols(&self, values: &[usize]) -> Result<(usize, Vec<usize>)> {
        let symbols = self.symbols();
        if symbols.len() != values.len() {
            let names = symbols.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            return Err(tensor(format!("{} run-time extents were given; the layer has {}: [{names}]", values.len(), symbols.len())));
        }
        let mut values = values.iter().copied();
        let mut take = |e: &Extent| match e {
            Extent::Fixed(v) => *v,
            Extent::Open(_) => values.next().unwrap_or(0),
        };
        let batch = take(&self.batch);
        let spatial: Vec<usize> = self.input.iter().map(take).collect();
        self.output_spatial(batch, &spatial)?;
        Ok((batch, spatial))
    }

    /// Batch and spatial input extents, if none is open.
    pub fn fixed_shape(&self) -> Option<(usize, Vec<usize>)> {
        Some((self.batch.known()?, self.input.iter().map(Extent::known).collect::<Option<_>>()?))
    }

    /// The same layer with its spatial extents open.
    pub fn open_spatial(&self) -> Deconv {
        Deconv { input: spatial_symbols(self.rank()).iter().map(|s| Extent::Open((*s).into())).collect(), ..self.clone() }
    }

    /// The same layer with its batch and its spatial extents open.
    pub fn open_extents(&self) -> Deconv {
        Deconv { batch: Extent::Open(BATCH.into()), ..self.open_spatial() }
    }

    /// The same layer with its open spatial extents fixed at these; the batch stays as it is.
    ///
    /// # Errors
    /// A wrong number of extents, a fixed extent that differs, extents for which there is no output.
    pub fn fixed_at(&self, spatial: &[usize]) -> Result<Deconv> {
        self.output_spatial(self.batch.known().unwrap_or(1), spatial)?;
        Ok(Deconv { input: spatial.iter().map(|v| Extent::Fixed(*v)).collect(), ..self.clone() })
    }

    /// Batch and spatial extents of an input array of this shape (in the order of the layout).
    ///
    /// # Errors
    /// Wrong rank or channels, a fixed extent that differs, extents for which there is no output.
    pub fn extents_of_input(&self, shape: &[usize]) -> Result<(usize, Vec<usize>)> {
        let rank = self.rank();
        if shape.len() != rank + 2 {
            return Err(tensor(format!("the input has {} dimensions; a {rank}-D layer needs {}", shape.len(), rank + 2)));
        }
        let (channels, spatial) = match self.layout {
            Layout::ChannelsFirst => (shape[1], &shape[2..]),
            Layout::ChannelsLast => (shape[rank + 1], &shape[1..=rank]),
        };
        if channels != self.c_in {
            return Err(tensor(format!("the input of shape {shape:?} has {channels} channels; the layer needs {}", self.c_in)));
        }
        self.output_spatial(shape[0], spatial)?;
        Ok((shape[0], spatial.to_vec()))
    }

    /// The spatial output extents, outermost first, for a batch size and spatial input extents.
    ///
    /// # Errors
    /// [`Kind::Tensor`] if an extent differs from the one that is fixed; [`Kind::Problem`] if an extent is 0 (batch excepted), if the
    /// output would be empty or if a tensor would not fit in memory.
    pub fn output_spatial(&self, batch: usize, spatial: &[usize]) -> Result<Vec<usize>> {
        per_axis("the list of input extents", spatial.len(), self.rank())?;
        let agree = |what: String, e: &Extent, v: usize| match e {
            Extent::Fixed(f) if *f != v => Err(tensor(format!("{what} is {v}; the layer was made for {f}"))),
            _ => Ok(()),
        };
        agree("batch".into(), &self.batch, batch)?;
        within(&format!("batch is {batch}"), batch as i128, 0, MAX_EXTENT.into())?;
        let mut out = Vec::with_capacity(spatial.len());
        for (a, (e, &v)) in self.input.iter().zip(spatial).enumerate() {
            agree(format!("input extent of axis {}", axis_name(self.rank(), a)), e, v)?;
            out.push(self.output_at(a, v)?);
        }
        self.tensor_bytes("input", self.arranged(batch, self.c_in, spatial))?;
        self.tensor_bytes("output", self.arranged(batch, self.c_out, &out))?;
        Ok(out)
    }

    /// The shape of the output array, in the order of the layout.
    ///
    /// # Errors
    /// As [`output_spatial`](Self::output_spatial).
    pub fn output_shape(&self, batch: usize, spatial: &[usize]) -> Result<Vec<usize>> {
        let out = self.output_spatial(batch, spatial)?;
        Ok(self.arranged(batch, self.c_out, &out))
    }

    /// The shape of the input array, in the order of the layout.
    ///
    /// # Errors
    /// As [`output_spatial`](Self::output_spatial).
    pub fn input_shape(&self, batch: usize, spatial: &[usize]) -> Result<Vec<usize>> {
        self.output_spatial(batch, spatial)?;
        Ok(self.arranged(batch, self.c_in, spatial))
    }

    fn arranged(&self, batch: usize, channels: usize, spatial: &[usize]) -> Vec<usize> {
        let mut shape = vec![batch];
        match self.layout {
            Layout::ChannelsFirst => {
                shape.push(channels);
                shape.extend(spatial);
            }
            Layout::ChannelsLast => {
                shape.extend(spatial);
                shape.push(channels);
            }
        }
        shape
    }
}

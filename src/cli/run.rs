//! `polyphase run`: a layer on tensors from `.npy` files.
//!
//! *Needs* a layer, its input and weight and, if it has one, its bias, in the layer's element type and layout; *leaves* the output in a new
//! `.npy` file. Open extents are those of the input. A function in the IR is run by the interpreter.

use super::source::{Given, Source, one};
use super::{Outcome, print};
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement, WritableElement};
use polyphase::codegen::target::Isa;
use polyphase::interp::{Tensors, execute};
use polyphase::ir::{Affine, BufferKind, Func};
use polyphase::{Deconv, Elem, Element, Error, Extent, Kind, Options, Result, passes, plan, reference};
use rayon::ThreadPoolBuilder;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// The input, [n, c, *spatial] or, channels last, [n, *spatial, c]
    #[arg(long, value_name = "X.npy")]
    input: PathBuf,
    /// The weight, [c_in, c_out / groups, *kernel]
    #[arg(long, value_name = "W.npy")]
    weight: PathBuf,
    /// The bias, [c_out]
    #[arg(long, value_name = "B.npy")]
    bias: Option<PathBuf>,
    /// Where the output goes
    #[arg(long, value_name = "Y.npy")]
    output: PathBuf,
    /// Native code, the interpreter on the lowered function, or the formula in f64
    #[arg(long, value_parser = ["jit", "interp", "reference"], default_value = "jit")]
    engine: String,
}

/// Runs the layer.
pub fn run(args: &Args) -> Result<Outcome> {
    if args.source.problem.is_none() {
        return Err(Error::new(Kind::Options, "run needs a problem: a module repr, a JSON layer, a descriptor, or a file of one of these"));
    }
    let given = args.source.given()?;
    let elem = match &given {
        Given::Layers(layers) => one(layers.clone())?.1.elem,
        Given::Ir(_, func) => func.elem,
    };
    let shape = match elem {
        Elem::F32 => typed::<f32>(args, given),
        Elem::F64 => typed::<f64>(args, given),
    }?;
    print(&format!("wrote {} of shape {shape:?}\n", args.output.display()));
    Ok(Outcome::Done)
}

fn typed<T: Element + ReadableElement + WritableElement>(args: &Args, given: Given) -> Result<Vec<usize>> {
    let files = Files::<T> { input: read(&args.input)?, weight: read(&args.weight)?, bias: args.bias.as_deref().map(read).transpose()? };
    let (shape, y) = match given {
        Given::Layers(layers) => {
            let (_, problem) = one(layers)?;
            files.layer(args, &problem)?
        }
        Given::Ir(_, func) => files.ir(args, &func)?,
    };
    let y = ArrayD::from_shape_vec(IxDyn(&shape), y)
        .map_err(|e| Error::new(Kind::Tensor, format!("the output does not have the shape {shape:?}: {e}")))?;
    ndarray_npy::write_npy(&args.output, &y)
        .map_err(|e| Error::new(Kind::Io, format!("'{}' cannot be written: {e}", args.output.display())))?;
    Ok(shape)
}

/// An array from a file; one in Fortran's order is brought into C's.
fn read<T: Element + ReadableElement>(path: &Path) -> Result<ArrayD<T>> {
    let failed = |why: String| Error::new(Kind::Io, format!("'{}' cannot be read: {why}", path.display()));
    let file = File::open(path).map_err(|e| failed(e.to_string()))?;
    let array = ArrayD::<T>::read_npy(BufReader::new(file)).map_err(|e| match e {
        ReadNpyError::WrongDescriptor(found) => {
            let message = format!("'{}' holds elements of type {found}; the layer computes in {}", path.display(), T::ELEM.name());
            Error::new(Kind::Tensor, message)
        }
        e => failed(e.to_string()),
    })?;
    if array.is_standard_layout() { Ok(array) } else { Ok(array.as_standard_layout().into_owned()) }
}

/// What was read.
struct Files<T> {
    input: ArrayD<T>,
    weight: ArrayD<T>,
    bias: Option<ArrayD<T>>,
}

impl<T: Element> Files<T> {
    /// The elements of an array in C's order; `read` made it so.
    fn slice(a: &ArrayD<T>) -> &[T] {
        a.as_slice().expect("arrays are brought into C's order when they are read")
    }

    /// Shape and elements of a layer's output.
    fn layer(&self, args: &Args, problem: &Deconv) -> Result<(Vec<usize>, Vec<T>)> {
        let (batch, spatial) = problem.extents_of_input(self.input.shape()).map_err(|e| e.context(args.input.display()))?;
        check_shape("weight", &args.weight, self.weight.shape(), &problem.weight_shape())?;
        match (&self.bias, &args.bias) {
            (Some(b), Some(path)) if problem.bias => check_shape("bias", path, b.shape(), &[problem.c_out])?,
            (Some(_), _) => return Err(Error::new(Kind::Tensor, format!("--bias is given, but the layer '{problem}' has no bias"))),
            (None, _) if problem.bias => {
                return Err(Error::new(
                    Kind::Tensor,
                    format!("the layer '{problem}' has a bias; --bias must give its {} values", problem.c_out),
                ));
            }
            _ => {}
        }
        let shape = problem.output_shape(batch, &spatial)?;
        let (x, w, bias) = (Self::slice(&self.input), Self::slice(&self.weight), self.bias.as_ref().map(Self::slice));
        let options = args.source.options()?;
        let mut y = vec![T::from_f64(0.0); shape.iter().product()];
        match args.engine.as_str() {
            "reference" => {
                let exact = reference::deconv(problem, batch, &spatial, x, w, bias)?;
                y = exact.into_iter().map(T::from_f64).collect();
            }
            "interp" => {
                let func = lowered(problem, &spatial, &options, w)?;
                let open = std::iter::once((&problem.batch, batch)).chain(problem.input.iter().zip(spatial));
                let symbols: Vec<i64> = open.filter(|(e, _)| matches!(e, Extent::Open(_))).map(|(_, v)| v as i64).collect();
                execute(&func, &symbols, Tensors { input: x, weight: w, bias, output: &mut y })?;
            }
            _ => {
                let kernel = problem.compile(w, bias, &options)?;
                let pool = ThreadPoolBuilder::new().num_threads(options.threads).build();
                let pool = pool.map_err(|e| Error::new(Kind::Options, format!("{} threads cannot be started: {e}", options.threads)))?;
                pool.install(|| kernel.run_sized(batch, &spatial, x, &mut y))?;
            }
        }
        Ok((shape, y))
    }

    /// Shape and elements of the output of a function in the IR.
    fn ir(&self, args: &Args, func: &Func) -> Result<(Vec<usize>, Vec<T>)> {
        if args.engine == "reference" {
            return Err(Error::new(Kind::Options, format!("--engine reference needs a layer; '{}' is a function in the IR", func.name)));
        }
        func.verify()?;
        let dims = |kind: BufferKind, what: &str| {
            let buffer = func.buffers.iter().find(|b| b.kind == kind);
            buffer.ok_or_else(|| Error::new(Kind::Ir, format!("the function '{}' has no {what} buffer", func.name)))
        };
        let input = dims(BufferKind::Input, "input")?;
        // Buffers list extents in logical order; files have them in the order of memory.
        let mut symbols = vec![0i64; func.symbols.len()];
        if input.order.len() != self.input.ndim() {
            let message = format!("the input has {} dimensions; the function's has {}", self.input.ndim(), input.order.len());
            return Err(Error::new(Kind::Tensor, message));
        }
        for (&dim, &extent) in input.order.iter().zip(self.input.shape()) {
            if let Some(i) = func.symbols.iter().position(|s| input.dims[dim] == Affine::sym(s)) {
                symbols[i] = extent as i64;
            }
        }
        let value = |a: &Affine| {
            let v = a.eval(&mut |atom| match atom {
                polyphase::ir::Atom::Sym(s) => func.symbols.iter().position(|n| n == s).map_or(0, |i| symbols[i]),
                _ => 0,
            });
            usize::try_from(v).map_err(|_| Error::new(Kind::Tensor, format!("an extent of the output is {v}; it must be at least 0")))
        };
        let output = dims(BufferKind::Output, "output")?;
        let shape = output.order.iter().map(|&d| value(&output.dims[d])).collect::<Result<Vec<_>>>()?;
        let mut y = vec![T::from_f64(0.0); shape.iter().product()];
        let tensors = Tensors {
            input: Self::slice(&self.input),
            weight: Self::slice(&self.weight),
            bias: self.bias.as_ref().map(Self::slice),
            output: &mut y,
        };
        match args.engine.as_str() {
            "interp" => execute(func, &symbols, tensors)?,
            _ => polyphase::explain::ir::compute(func, &symbols, args.source.options()?.isa.map_or_else(Isa::best, Ok)?, tensors)?,
        }
        Ok((shape, y))
    }
}

/// The function that native code would be made of.
fn lowered<T: Element>(problem: &Deconv, spatial: &[usize], options: &Options, w: &[T]) -> Result<Func> {
    let isa = match options.isa {
        Some(isa) => isa,
        None => Isa::best()?,
    };
    let finite = w.iter().all(|w| w.to_f64().is_finite());
    let plan = plan::version_for(problem, spatial, isa, options, finite)?.choice.plan;
    passes::lower_problem(problem, &plan)
}

fn check_shape(what: &str, path: &Path, shape: &[usize], wanted: &[usize]) -> Result<()> {
    if shape == wanted {
        return Ok(());
    }
    Err(Error::new(Kind::Tensor, format!("the {what} in '{}' has shape {shape:?}; the layer needs {wanted:?}", path.display())))
}

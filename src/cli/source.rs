//! How a problem is given on the command line, and what may be forced.
//!
//! Every verb flattens [`Source`] into its arguments. *Needs* nothing but text, which may be anything; *leaves* validated problems
//! with their names, or a function in the IR. A problem is, in this order: `-` (standard input), a file, or the text itself; file or text may be
//!
//! | it holds | told by |
//! |---|---|
//! | a function in the IR | it starts with `func`, or the file ends in `.ir` |
//! | JSON: one layer, or a list | it starts with `{` or `[` |
//! | PyTorch's module repr | it contains `ConvTranspose` |
//! | a descriptor | everything else |

use polyphase::codegen::target::Isa;
use polyphase::ir::{self, Func};
use polyphase::plan::{Algorithm, Form, Processor};
use polyphase::problem::text::{self, Layer};
use polyphase::runtime::MAX_THREADS;
use polyphase::{Deconv, Error, Kind, Options, Result};
use std::io::Read;
use std::path::Path;

/// The layer that is shown when no problem is given: the first strided layer of DCGAN's generator.
pub const BUILT_IN: &str = "ConvTranspose2d(512, 256, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False)";
/// Its input shape.
const BUILT_IN_SHAPE: &str = "1,512,4,4";
/// Files larger than this are not problems.
const MAX_FILE: u64 = 64 << 20;

/// The problem, and what the compiler is not to choose by itself.
#[derive(Debug, Clone, clap::Args)]
pub struct Source {
    /// PyTorch module repr, descriptor (`2d n1 512x4x4 -> 256 k4 s2 p1`), JSON, or a file of one of these or of IR; `-` reads standard input
    #[arg(value_name = "PROBLEM")]
    pub problem: Option<String>,
    /// The layer of a JSON list: its name, or a part of it that no other layer's name has
    #[arg(long, value_name = "NAME")]
    pub layer: Option<String>,
    /// Input shape, `n,c,*spatial` with `?` for what stays open until run time: `1,512,4,4`
    #[arg(long, value_name = "SHAPE", allow_hyphen_values = true)]
    pub input_shape: Option<String>,
    /// Instruction-set level instead of the best of this machine: sse2, fma, avx2, avx512, neon
    #[arg(long, value_name = "LEVEL")]
    pub isa: Option<String>,
    /// The processor for which plans are chosen, instead of this one: this, zen3, zen4, zen5,
    /// cascade-lake, intel-server
    #[arg(long, value_name = "NAME")]
    pub processor: Option<String>,
    /// Loop nest per output or per input pixel, instead of the cheaper one
    #[arg(long, value_name = "FORM", value_parser = ["gather", "scatter"])]
    pub form: Option<String>,
    /// Direct sums, or transformed windows, instead of the cheaper one
    #[arg(long, value_name = "NAME", value_parser = ["direct", "winograd"])]
    pub algorithm: Option<String>,
    /// Every choice of the compiler at once, as `explain` prints it: `gather panel oc=6 rx=2 qx=32 along qx x16 block 4x0`
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<String>,
    /// Spatial extents at which a layer with open ones is to be fast, instead of a few sizes: `64x64` or `32x32,64x64`
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    pub typical: Vec<String>,
    /// Most MiB of packed weights for all sizes of a layer with open extents, instead of ten times the weights or 64 MiB
    #[arg(long, value_name = "MIB")]
    pub packing_limit: Option<usize>,
    /// Threads over which a run is shared out
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub threads: usize,
}

/// One size: `64x64`.
fn typical(size: &str) -> Result<Vec<usize>> {
    let extents = size.split('x').map(|e| e.parse().ok()).collect::<Option<Vec<usize>>>();
    let wrong = || format!("--typical has '{}'; extents such as 64x64, and several sizes as 32x32,64x64, are legal", size.escape_debug());
    extents.ok_or_else(|| Error::new(Kind::Options, wrong()))
}

/// What was given.
#[derive(Debug)]
pub enum Given {
    /// Layers with their names; never an empty list.
    Layers(Vec<(String, Deconv)>),
    /// A function in the IR, with the name of its file (or its own).
    Ir(String, Box<Func>),
}

impl Source {
    /// What was given: layers (those that `--layer` picks), or IR. Nothing at all is the built-in layer.
    ///
    /// # Errors
    /// [`Kind::Io`] for files that cannot be read, [`Kind::Parse`] and [`Kind::Problem`] for what they say.
    pub fn given(&self) -> Result<Given> {
        let Some(problem) = self.problem.as_deref() else {
            let shape = self.input_shape.as_deref().unwrap_or(BUILT_IN_SHAPE);
            let layer = Layer { name: "dcgan_512-256_k4s2p1".into(), problem: text::read(BUILT_IN, Some(shape))? };
            return Ok(Given::Layers(pairs(self.picked(vec![layer])?)));
        };
        let (name, source, ir_file) = load(problem)?;
        let source = source.trim();
        if ir_file || starts_with_func(source) {
            self.refuse_layer_flags()?;
            let func = ir::parse(source).map_err(|e| named(e, name.as_deref()))?;
            return Ok(Given::Ir(name.unwrap_or_else(|| func.name.to_string()), Box::new(func)));
        }
        let layers = self.layers(source).map_err(|e| named(e, name.as_deref()))?;
        Ok(Given::Layers(pairs(self.picked(layers)?)))
    }

    /// Every problem that was given, with its name.
    ///
    /// # Errors
    /// As [`Source::given`]; IR.
    pub fn all(&self) -> Result<Vec<(String, Deconv)>> {
        match self.given()? {
            Given::Layers(layers) => Ok(layers),
            Given::Ir(name, _) => {
                Err(Error::new(Kind::Parse, format!("'{name}' is a function in the IR; a layer is needed here (explain takes IR)")))
            }
        }
    }

    /// What is forced, as options of `compile`.
    ///
    /// # Errors
    /// [`Kind::Options`] for a level that this machine lacks, a processor that nobody knows, or a number of threads out of range.
    pub fn options(&self) -> Result<Options> {
        if !(1..=MAX_THREADS).contains(&self.threads) {
            return Err(Error::new(Kind::Options, format!("--threads is {}; 1 to {MAX_THREADS} are legal", self.threads)));
        }
        let isa = self.isa.as_deref().map(Isa::forced).transpose()?;
        let processor = self.processor.as_deref().map(Processor::named).transpose()?;
        let form = self.form.as_deref().map(|f| if f == "scatter" { Form::Scatter } else { Form::Gather });
        let algorithm = self.algorithm.as_deref().map(Algorithm::named).transpose()?;
        let plan = self.plan.as_deref().map(str::parse).transpose()?;
        let typical = self.typical.iter().map(|size| typical(size)).collect::<Result<_>>()?;
        let packing_limit = self.packing_limit.map(|mib| mib.saturating_mul(1 << 20));
        Ok(Options { isa, processor, form, algorithm, plan, typical, packing_limit, threads: self.threads, ..Options::default() })
    }

    /// The layers of a text that is not IR.
    fn layers(&self, source: &str) -> Result<Vec<Layer>> {
        let shape = self.input_shape.as_deref();
        if source.starts_with(['{', '[']) {
            let layers = text::parse_json(source)?;
            let Some(shape) = shape else { return Ok(layers) };
            // The shape replaces that of the one layer that it is meant for.
            let chosen = self.picked(layers)?;
            let reshaped = |l: Layer| Ok(Layer { problem: text::read(&l.problem.to_string(), Some(shape))?, name: l.name });
            return chosen.into_iter().map(reshaped).collect();
        }
        let problem = text::read(source, shape)?;
        Ok(vec![Layer { name: problem.to_string(), problem }])
    }

    /// The layer that `--layer` names, or all of them.
    fn picked(&self, layers: Vec<Layer>) -> Result<Vec<Layer>> {
        if layers.is_empty() {
            return Err(Error::new(Kind::Parse, "the list of layers is empty; at least one is needed"));
        }
        let Some(wanted) = &self.layer else { return Ok(layers) };
        let names: Vec<String> = layers.iter().map(|l| l.name.clone()).collect();
        let exact = layers.iter().filter(|l| l.name == *wanted).count();
        let hit = |l: &Layer| if exact > 0 { l.name == *wanted } else { l.name.contains(wanted.as_str()) };
        let mut hits: Vec<Layer> = layers.into_iter().filter(|l| hit(l)).collect();
        match hits.len() {
            1 => Ok(hits),
            0 => Err(Error::new(Kind::Parse, format!("no layer is called '{wanted}'; there are {}", few(&names)))),
            _ if exact > 0 => {
                hits.truncate(1);
                Ok(hits)
            }
            n => {
                let names: Vec<String> = hits.into_iter().map(|l| l.name).collect();
                Err(Error::new(Kind::Parse, format!("{n} layers have '{wanted}' in their names; give more of one of {}", few(&names))))
            }
        }
    }

    fn refuse_layer_flags(&self) -> Result<()> {
        let given = [
            ("--layer", self.layer.is_some()),
            ("--input-shape", self.input_shape.is_some()),
            ("--form", self.form.is_some()),
            ("--processor", self.processor.is_some()),
            ("--algorithm", self.algorithm.is_some()),
            ("--plan", self.plan.is_some()),
            ("--typical", !self.typical.is_empty()),
            ("--packing-limit", self.packing_limit.is_some()),
            ("--threads", self.threads != 1),
        ];
        match given.iter().find(|g| g.1) {
            Some((flag, _)) => Err(Error::new(Kind::Options, format!("{flag} means nothing for a function in the IR; leave it out"))),
            None => Ok(()),
        }
    }
}

/// The only one of the layers that were given.
///
/// # Errors
/// Several layers.
pub fn one(mut layers: Vec<(String, Deconv)>) -> Result<(String, Deconv)> {
    match (layers.pop(), layers.len()) {
        (Some(one), 0) => Ok(one),
        (last, _) => {
            let names: Vec<String> = layers.into_iter().chain(last).map(|l| l.0).collect();
            Err(Error::new(Kind::Parse, format!("{} layers were given; --layer NAME picks one: {}", names.len(), few(&names))))
        }
    }
}

/// The text of a problem, the name of the file it came from, and whether that file is called IR.
fn load(problem: &str) -> Result<(Option<String>, String, bool)> {
    let path = Path::new(problem);
    if problem == "-" {
        let mut all = String::new();
        let read = std::io::stdin().take(MAX_FILE).read_to_string(&mut all);
        read.map_err(|e| Error::new(Kind::Io, format!("standard input cannot be read: {e}")))?;
        return Ok((None, all, false));
    }
    let is_text =
        starts_with_func(problem.trim()) || problem.trim().starts_with(['{', '[']) || problem.contains("->") || problem.contains('(');
    if is_text && !path.is_file() {
        return Ok((None, problem.to_string(), false));
    }
    let failed = |why: &dyn std::fmt::Display| {
        let legal = "a problem is a file, a module repr such as `ConvTranspose2d(64, 3, 4, 2, 1)`, JSON, or a descriptor such as `2d n1 64x8x8 -> 3 k4 s2 p1`";
        Error::new(
            Kind::Io,
            format!("'{}' cannot be read as a file: {why}; {legal}", problem.chars().take(80).collect::<String>().escape_debug()),
        )
    };
    let about = std::fs::metadata(path).map_err(|e| failed(&e))?;
    if !about.is_file() {
        return Err(failed(&"it is not a regular file"));
    }
    if about.len() > MAX_FILE {
        return Err(failed(&format_args!("it has {} bytes, more than the {MAX_FILE} that a problem may have", about.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    Ok((Some(problem.to_string()), text, path.extension().is_some_and(|e| e == "ir")))
}

/// Whether a text is IR: `func` and white space, or nothing, after any comments.
fn starts_with_func(text: &str) -> bool {
    let code = text.lines().map(str::trim_start).find(|l| !l.is_empty() && !l.starts_with("//")).unwrap_or("");
    code.strip_prefix("func").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

fn named(e: Error, file: Option<&str>) -> Error {
    match file {
        Some(name) => e.context(name),
        None => e,
    }
}

fn pairs(layers: Vec<Layer>) -> Vec<(String, Deconv)> {
    layers.into_iter().map(|l| (l.name, l.problem)).collect()
}

/// A few names, for a sentence.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let mut out = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        out.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    out
}

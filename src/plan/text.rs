//! The plan as one line of text, printed and parsed.
//!
//! ```text
//! plan  := form aligned? bounded? input winograd? tile* lanes block reduction? parts? fma? stream?
//! form  := gather | scatter
//! aligned := aligned                 phases count from the uncropped edge (not those of an x that windows leave as it is)
//! bounded := bounded                 taps outside the input are left out
//! input := panel | in-place          a zero-halo panel, or guards at the taps
//! winograd := winograd 3x3 held 32 by-phase?   outputs of a phase per window on each axis, and channels whose products are held at a time
//! tile  := oc=6 | qx=32 | ry=2 …     iterations of a loop that one register tile holds, outer loops first
//! lanes := along qx x16              which of them lies along the lanes, and how many lanes a vector has
//! block := block 4x0                 positions per panel block on each spatial axis, outermost first; 0 is the whole axis
//! reduction := reduction 256         input channels that are summed at a time
//! parts := parts 2                   parts of the output channels, for threads
//! fma   := no-fma                    multiply and add are separate
//! stream := stream                   stores bypass the caches
//! ```
//!
//! Needs nothing but text, which may be anything. Parsing leaves a plan that prints as the same words; whether it suits a problem and a
//! machine is for [`super::choose`] to say. The limits here only keep a hostile text from asking for a kernel of any size.
//!
//! ```
//! use polyphase::plan::Plan;
//! let text = "gather aligned panel oc=6 rx=2 qx=32 along qx x16 block 4x0 parts 2 stream";
//! let plan: Plan = text.parse()?;
//! assert_eq!((plan.extent("oc"), plan.lanes, plan.fma), (6, 16, true));
//! assert_eq!(plan.to_string(), text);
//! # Ok::<(), polyphase::Error>(())
//! ```

use super::{Form, Plan, Sizes, TileAxis, Winograd};
use crate::ir::names::axes;
use crate::passes::toom_cook;
use crate::problem::MAX_EXTENT;
use crate::{Error, Kind, Result, Short};
use std::fmt;
use std::iter::Peekable;
use std::str::{FromStr, SplitWhitespace};

/// The most iterations of one loop in a tile.
const MAX_TILE: usize = 256;
/// The most vectors of accumulators in a tile; no machine has so many registers.
const MAX_VECTORS: usize = 64;
/// The most lanes of a vector: 64 bytes of `f32`.
const MAX_LANES: usize = 16;
/// The most output channels whose products are held.
const MAX_HELD: usize = 4096;
/// The most parts of the output channels.
pub(super) const MAX_PARTS: usize = 1024;

const EXAMPLE: &str = "gather aligned panel oc=6 rx=2 qx=32 along qx x16 block 4x0 parts 2 no-fma stream";

impl fmt::Display for Plan {
    /// One line, which parses back to the same plan.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}{}",
            self.form.name(),
            if self.aligned { " aligned" } else { "" },
            if self.bounded { " bounded" } else { "" },
            if self.panel { " panel" } else { " in-place" }
        )?;
        if let Some(w) = &self.winograd {
            let outputs: Vec<String> = w.outputs.iter().map(usize::to_string).collect();
            write!(f, " winograd {} held {}", outputs.join("x"), w.held)?;
            f.write_str(if w.by_phase { " by-phase" } else { "" })?;
        }
        for t in &self.tile {
            write!(f, " {}={}", t.var, t.extent)?;
        }
        let blocks: Vec<String> = self.block.iter().map(usize::to_string).collect();
        write!(f, " along {} x{} block {}", self.vector, self.lanes, blocks.join("x"))?;
        if self.reduction > 0 {
            write!(f, " reduction {}", self.reduction)?;
        }
        if self.channel_parts > 1 {
            write!(f, " parts {}", self.channel_parts)?;
        }
        f.write_str(if self.fma { "" } else { " no-fma" })?;
        f.write_str(if self.stream { " stream" } else { "" })
    }
}

impl FromStr for Plan {
    type Err = Error;

    /// Reads what [`Plan`] prints.
    ///
    /// # Errors
    /// [`Kind::Parse`], naming the word that does not fit and what is legal in its place.
    fn from_str(text: &str) -> Result<Plan> {
        Words { words: text.split_whitespace().peekable() }.plan().map_err(|e| e.context("plan"))
    }
}

fn error(message: impl Into<String>) -> Error {
    Error::new(Kind::Parse, message)
}

/// A word of the user's, quoted and cut to a length that a sentence bears.
fn quoted(word: &str) -> String {
    let short: String = word.chars().take(40).collect();
    format!("`{}{}`", short.escape_debug(), if short.len() < word.len() { "…" } else { "" })
}

/// A number of digits only, within limits.
fn number(text: &str, what: &str, lo: usize, hi: usize) -> Result<usize> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse::<usize>() {
        Ok(v) if plain && (lo..=hi).contains(&v) => Ok(v),
        _ => Err(error(format!("{what} is {}; a number from {lo} to {hi} is legal", quoted(text)))),
    }
}

struct Words<'a> {
    words: Peekable<SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    fn next(&mut self, legal: &str) -> Result<&'a str> {
        self.words.next().ok_or_else(|| error(format!("the text ends where {legal} is legal, as in `{EXAMPLE}`")))
    }

    /// Takes the word if it comes next.
    fn take(&mut self, word: &str) -> bool {
        self.words.next_if(|w| *w == word).is_some()
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        match self.next(word)? {
            found if found == word => Ok(()),
            found => Err(error(format!("{} stands where `{word}` is legal", quoted(found)))),
        }
    }

    fn plan(&mut self) -> Result<Plan> {
        let form = self.one_of("`gather` or `scatter`", [("gather", Form::Gather), ("scatter", Form::Scatter)])?;
        let aligned = self.take("aligned");
        let bounded = self.take("bounded");
        let panel = self.one_of("`panel` or `in-place`", [("panel", true), ("in-place", false)])?;
        let winograd = if self.take("winograd") { Some(self.winograd()?) } else { None };
        let tile = self.tile()?;
        self.expect("along")?;
        let vector = self.next("a loop of the tile")?;
        let lanes = self.next("the number of lanes, as in x16,")?;
        let digits =
            lanes.strip_prefix('x').ok_or_else(|| error(format!("{} stands where the lanes are legal, as in x16", quoted(lanes))))?;
        let lanes = number(digits, "the number of lanes", 1, MAX_LANES)?;
        self.expect("block")?;
        let block = self.block()?;
        let reduction =
            if self.take("reduction") { number(self.next("a number of channels")?, "the reduction", 1, MAX_EXTENT as usize)? } else { 0 };
        let channel_parts = if self.take("parts") { number(self.next("a number")?, "parts", 2, MAX_PARTS)? } else { 1 };
        let fma = !self.take("no-fma");
        let stream = self.take("stream");
        if let Some(word) = self.words.next() {
            return Err(error(format!(
                "{} is left over; after the blocks `reduction N`, `parts N`, `no-fma` and `stream` are legal, in this order",
                quoted(word)
            )));
        }
        let plan = Plan {
            form,
            aligned,
            panel,
            bounded,
            block,
            reduction,
            channel_parts,
            winograd,
            tile,
            vector: vector.into(),
            lanes,
            fma,
            stream,
        };
        check(&plan)?;
        Ok(plan)
    }

    fn one_of<T: Copy>(&mut self, legal: &str, words: [(&str, T); 2]) -> Result<T> {
        let word = self.next(legal)?;
        let found = words.iter().find(|(w, _)| *w == word).map(|(_, v)| *v);
        found.ok_or_else(|| error(format!("{} stands where {legal} is legal", quoted(word))))
    }

    fn tile(&mut self) -> Result<Short<TileAxis, 4>> {
        let mut tile: Short<TileAxis, 4> = Short::new();
        while let Some(word) = self.words.next_if(|w| *w != "along") {
            let Some((var, extent)) = word.split_once('=') else {
                return Err(error(format!("{} stands where a tile loop such as oc=6, or `along`, is legal", quoted(word))));
            };
            if tile.iter().any(|t| t.var == var) {
                return Err(error(format!("the tile names {} twice; once is legal", quoted(var))));
            }
            let extent = number(extent, &format!("the tile extent of {}", quoted(var)), 1, MAX_TILE)?;
            tile.push(TileAxis { var: var.into(), extent });
        }
        Ok(tile)
    }

    fn winograd(&mut self) -> Result<Winograd> {
        let outputs = self.sizes("window", 1, toom_cook::MOST_PRODUCTS)?;
        self.expect("held")?;
        let held = number(self.next("a number of channels")?, "the number of channels held", 1, MAX_HELD)?;
        Ok(Winograd { outputs, held, by_phase: self.take("by-phase") })
    }

    fn block(&mut self) -> Result<Sizes> {
        self.sizes("block", 0, MAX_EXTENT as usize)
    }

    /// One number per spatial axis, as in `4x0`.
    fn sizes(&mut self, what: &str, lo: usize, hi: usize) -> Result<Sizes> {
        let list = self.next(&format!("a list of {what} sizes, as in 4x0,"))?;
        let one = format!("a {what} size");
        let sizes = list.split('x').map(|b| number(b, &one, lo, hi)).collect::<Result<Sizes>>()?;
        if sizes.len() > 3 {
            return Err(error(format!("{what} {} has {} sizes; one per spatial axis, 1 to 3, is legal", quoted(list), sizes.len())));
        }
        Ok(sizes)
    }
}

/// What holds for every problem and every machine.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let rank = plan.block.len();
    let legal: Vec<String> = ["g".into(), "oc".into()]
        .into_iter()
        .chain("qrki".chars().flat_map(|r| axes(rank).iter().map(move |a| format!("{r}{a}"))))
        .chain(plan.winograd.iter().flat_map(|_| axes(rank).iter().map(|a| format!("f{a}")).chain(["qw".into()])))
        .collect();
    if let Some(t) = plan.tile.iter().find(|t| !legal.iter().any(|l| t.var == l.as_str())) {
        return Err(error(format!(
            "the tile names {}; with {rank} block sizes the legal loops are {}",
            quoted(t.var.as_str()),
            legal.join(", ")
        )));
    }
    if let Some(w) = &plan.winograd {
        if w.outputs.len() != rank {
            return Err(error(format!("{} window sizes with {rank} block sizes; one per spatial axis is legal", w.outputs.len())));
        }
        if plan.form != Form::Gather || !plan.panel || !plan.aligned || plan.vector != "qw" && plan.vector != "oc" {
            return Err(error(
                "windows need aligned phases, a panel and lanes along qw or oc; legal: `gather aligned panel winograd … along qw`",
            ));
        }
    }
    if plan.form == Form::Scatter && (plan.panel || plan.aligned) {
        return Err(error("a scatter plan has neither a panel nor aligned phases; legal: `scatter in-place`"));
    }
    if plan.tile.is_empty() && plan.lanes == 1 {
        // Without a tile there are no lanes for a loop to lie along.
        return Ok(());
    }
    let Some(along) = plan.tile.iter().find(|t| t.var == plan.vector) else {
        let vars: Vec<&str> = plan.tile.iter().map(|t| t.var.as_str()).collect();
        let vars = if vars.is_empty() { "none, as the tile is empty".into() } else { vars.join(", ") };
        return Err(error(format!("the lanes lie along {}, which is no loop of the tile; legal: {vars}", quoted(plan.vector.as_str()))));
    };
    if !plan.lanes.is_power_of_two() {
        return Err(error(format!("a vector of {} lanes; 1, 2, 4, 8 and 16 are legal", plan.lanes)));
    }
    if along.extent % plan.lanes != 0 {
        return Err(error(format!("{}={} is not a multiple of the {} lanes that lie along it", along.var, along.extent, plan.lanes)));
    }
    let vectors = plan.tile.iter().map(|t| t.extent).fold(1usize, usize::saturating_mul) / plan.lanes;
    if vectors > MAX_VECTORS {
        return Err(error(format!("the tile holds {vectors} vectors; at most {MAX_VECTORS} are legal")));
    }
    Ok(())
}

//! The cost model: predicted cycles of a plan on one thread, by cause.
//!
//! A tile's reduction step costs what its slowest resource needs: multiply-adds, loads, or the latency of its chain of accumulators. On top of
//! it come the stores of a tile, the panel, and what streams from caches and memory. Tiles that overhang the output work for nothing,
//! which shows as more tiles.

use super::machine::Machine;
use super::windows::{WindowAxes, WindowAxis, Windows};
use super::{Form, Plan, candidates};
use crate::codegen::target::{FEW_PRODUCTS, Isa};
use crate::ir::names::axes;
use crate::problem::{Deconv, Layout};

/// Predicted cycles, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Reduction steps of all tiles.
    pub compute: f64,
    /// Storing tiles: interleaving, transposing, clipping.
    pub store: f64,
    /// Filling panels.
    pub panel: f64,
    /// Weights and outputs from and to caches and memory, beyond what overlaps with computing.
    pub traffic: f64,
}

impl Cost {
    /// All of it.
    pub fn cycles(&self) -> f64 {
        self.compute + self.store + self.panel + self.traffic
    }
    pub(super) fn plus(self, other: Cost) -> Cost {
        let sum = |part: fn(&Cost) -> f64| part(&self) + part(&other);
        Cost { compute: sum(|c| c.compute), store: sum(|c| c.store), panel: sum(|c| c.panel), traffic: sum(|c| c.traffic) }
    }
    pub(super) fn times(self, by: f64) -> Cost {
        Cost { compute: self.compute * by, store: self.store * by, panel: self.panel * by, traffic: self.traffic * by }
    }
}

/// What an open extent is taken to be, where no size is given.
pub(super) const OPEN: usize = 64;
/// Starting and ending a tile: clearing accumulators, pointers, loops around it.
const CALL: f64 = 8.0;
/// Lines that a step asks for ahead: of the weights it reads next, and of those that come after. Each takes a load's slot.
const ASKS: f64 = 2.0;
/// Reading from another page: of a cache, and of memory.
const PAGE: [f64; 2] = [8.0, 20.0];
/// Bytes of a page of memory.
const PAGE_BYTES: f64 = 4096.0;
/// Bytes of a cache line.
const LINE: f64 = 64.0;
/// Lines of a piece of a row from which on it costs no more than a whole row.
const SHORT: f64 = 8.0;
/// Bytes per cycle of a panel's columns that come from the second-level cache while a tile computes.
const COLUMNS: f64 = 10.0;
/// Cycles to interleave and store a vector.
const INTERLEAVE: f64 = 0.5;
/// Cycles that each line of the output waits that can't be under way with the others of its tile, where they come from beyond the second level.
const LATE: f64 = 16.0;
/// Cycles that each run of neighbouring outputs of a tile takes there besides: another row is another page.
const RUN: f64 = 4.0;
/// The share of the time for a panel that comes from the second level again which shows, though every step fetches it in time.
const SWEEP: f64 = 0.08;
/// The share of the second level up to which a panel stays in it whatever outputs go through it.
pub(super) const ROOMY: f64 = 0.125;
/// Loading a vector under a mask that depends on where it is.
const MASK: f64 = 1.0;
/// The same where masks are vectors, which are loaded, too, and making such a mask for a tile (timed on Zen 3).
const MASK_VECTOR: f64 = 0.5;
const MAKE_MASK: f64 = 4.0;
/// Cycles for a line of sums to wait for the next few channels.
const SUMS: f64 = 4.0;
/// Testing one tap.
const GUARD: f64 = 1.5;
/// Cycles to store the lanes of a vector that are inside, one by one.
const HANGING: f64 = 24.0;
/// Cycles to store one element of a vector whose lanes are apart in memory.
const STRIDED: f64 = 1.4;
/// Cycles to store up to 16 bytes that lie side by side, of one lane, and to shuffle them into place.
const PIECE: f64 = 1.2;
/// How much longer a step takes when Cranelift's allocator has to spill accumulators.
const SPILL: f64 = 1.5;

/// What all plans of a problem have in common.
pub struct Costs<'a> {
    p: &'a Deconv,
    m: &'a Machine,
    batch: f64,
    input: Vec<f64>,
    output: Vec<f64>,
    landing: Vec<f64>,
    window_axes: Option<WindowAxes>,
    at_run_time: bool,
}

impl<'a> Costs<'a> {
    /// The problem's sizes; open ones are taken to be [`OPEN`].
    pub fn new(p: &'a Deconv, m: &'a Machine) -> Self {
        let input: Vec<usize> = p.input.iter().map(|e| e.known().unwrap_or(OPEN)).collect();
        let output = (0..p.rank()).map(|a| p.output_extent(a).eval(&mut |_| input[a] as i64).max(1) as f64).collect();
        let input = input.iter().map(|i| *i as f64).collect();
        let (landing, window_axes) = (candidates::landing(p), WindowAxis::all(p));
        Costs { p, m, batch: p.batch.known().unwrap_or(1) as f64, input, output, landing, window_axes, at_run_time: false }
    }

    /// The same for a problem whose extents come at run time, at those of `p`: its blocks are cut evenly.
    pub fn at_run_time(p: &'a Deconv, m: &'a Machine) -> Self {
        Costs { at_run_time: true, ..Self::new(p, m) }
    }

    /// Bytes of the panel of one block.
    pub fn panel_bytes(&self, plan: &Plan) -> f64 {
        Model::new(self, plan).panel() * self.p.elem.bytes() as f64
    }

    /// Bytes of a tensor with so many channels.
    fn bytes(&self, channels: usize, spatial: &[f64]) -> f64 {
        self.batch * channels as f64 * spatial.iter().product::<f64>() * self.p.elem.bytes() as f64
    }

    /// Cycles for reading the input and writing the output, beyond what overlaps with computing.
    fn tensors(&self, plan: &Plan) -> f64 {
        let (input, output) = (self.bytes(self.p.c_in, &self.input), self.bytes(self.p.c_out, &self.output));
        let stored = if plan.winograd.is_some() && output > self.m.l2 as f64 { output / LINE * self.m.rates.leaving } else { 0.0 };
        (output + input) * self.m.rates.tensors / self.m.rate(output) + stored + self.pieces(plan, input, output)
    }

    /// What tensors beyond the second level cost besides where blocks are narrower than rows: a piece of a row ends within a line, of which the next block writes
    /// or reads the rest when it is gone, and hardware fetches little ahead of short pieces. So they cost as the square of how many there are, up to some length;
    /// where sums are direct, each piece but the first of a row starts anew, however long it is.
    fn pieces(&self, plan: &Plan, input: f64, output: f64) -> f64 {
        let x = self.p.rank() - 1;
        let (block, stride) = (plan.block[x] as f64, self.p.stride[x] as f64);
        let positions = self.output[x] / stride;
        if block == 0.0 || block >= positions || self.p.layout == Layout::ChannelsLast {
            return 0.0;
        }
        let of = |tensor: f64, columns: f64, row: f64| {
            let bytes = columns * self.p.elem.bytes() as f64;
            let (rows, each) = (tensor / (row * self.p.elem.bytes() as f64), (positions / block).ceil());
            let lines = (bytes / LINE).max(1.0);
            let short = if lines < SHORT { each * self.m.rates.piece / lines } else { 0.0 };
            let anew = if plan.winograd.is_none() { (each - 1.0) * self.m.rates.cut } else { 0.0 };
            if tensor > self.m.l2 as f64 { rows * (short + anew) } else { 0.0 }
        };
        of(input, block, self.input[x]) + of(output, block * stride, self.output[x])
    }

    /// The cost of a plan.
    pub fn of(&self, plan: &Plan) -> Cost {
        let mut cost = match self.window_axes.as_ref().and_then(|axes| Windows::of(self.p, axes, plan, self.at_run_time)) {
            Some(windows) => windows.cost(self.m),
            None => Model::new(self, plan).cost(),
        };
        cost.traffic += self.tensors(plan);
        cost
    }
}

/// What one reduction step costs: every accumulator gets one multiply-add, and `fetch` cycles go by while operands come from the second level.
pub(super) fn step(m: &Machine, vectors: f64, operands: f64, scalars: f64, fetch: f64) -> f64 {
    let fmas = vectors / m.fma_per_cycle;
    let loads = operands / m.loads_per_cycle + (scalars + ASKS) / m.rates.broadcasts;
    // Fewer accumulators than the units can keep in flight: each waits for itself.
    let chain = if vectors < m.latency * m.fma_per_cycle { m.latency } else { 0.0 };
    let spill = if !m.isa.wide() && vectors + operands > m.registers as f64 * 0.7 { SPILL } else { 1.0 };
    // The slowest of them; what is nearly as slow gets in its way: a mean of a high power, by squares and square roots.
    let doublings = || 0..m.rates.sharp;
    let busy: f64 = [fmas.max(chain), loads, fetch].map(|cycles| doublings().fold(cycles, |c, _| c * c)).iter().sum();
    let busy = doublings().fold(busy, |sum, _| sum.sqrt());
    busy * spill + m.rates.step * m.passes
}

/// Cycles to store one element of a tile with columns along the lanes, channels last: a tile's channels lie side by side, in pieces, if every tile has
/// all of them.
pub(super) fn lane_apart(p: &Deconv, m: &Machine, tile: usize) -> f64 {
    let most = 16 / p.elem.bytes();
    let (whole, rest) = (tile / most, tile % most);
    let pieces = whole + [0, 1, 1, 2][rest.min(3)];
    let each = if tile > 1 && (p.c_out / p.groups).is_multiple_of(tile) { PIECE * pieces as f64 / tile as f64 } else { STRIDED };
    m.rates.apart * each
}

struct Model<'a> {
    p: &'a Deconv,
    plan: &'a Plan,
    m: &'a Machine,
    rank: usize,
    batch: f64,
    ic: f64,
    oc: f64,
    input: &'a [f64],
    output: &'a [f64],
    landing: &'a [f64],
    at_run_time: bool,
    /// The extents of the tile along each axis, for each of [`ROLES`].
    extents: [[f64; 3]; ROLES.len()],
}

/// The roles of loops along an axis that a tile may hold: positions, phases, taps of a patch.
const ROLES: [char; 3] = ['q', 'r', 'k'];

impl<'a> Model<'a> {
    fn new(of: &'a Costs, plan: &'a Plan) -> Self {
        let p = of.p;
        let mut extents = [[1.0; 3]; ROLES.len()];
        for t in &plan.tile {
            let Some((role, axis)) = ROLES.iter().enumerate().find_map(|(i, role)| Some((i, t.var.as_str().strip_prefix(*role)?))) else {
                continue;
            };
            if let Some(a) = axes(p.rank()).iter().position(|name| *name == axis) {
                extents[role][a] = t.extent as f64;
            }
        }
        Model {
            p,
            plan,
            m: of.m,
            rank: p.rank(),
            batch: of.batch,
            ic: (p.c_in / p.groups) as f64,
            oc: (p.c_out / p.groups) as f64,
            input: &of.input,
            output: &of.output,
            landing: &of.landing,
            at_run_time: of.at_run_time,
            extents,
        }
    }

    fn extent(&self, role: char, a: usize) -> f64 {
        ROLES.iter().position(|r| *r == role).map_or(1.0, |role| self.extents[role][a])
    }

    /// Taps of a phase, on average.
    fn taps(&self, a: usize) -> f64 {
        self.p.kernel[a] as f64 / self.p.stride[a] as f64
    }

    fn cost(&self) -> Cost {
        match self.plan.form {
            Form::Gather => self.gather(),
            Form::Scatter => self.scatter(),
        }
    }

    /// Cycles in which the operands of one reduction step come from the second-level cache: each line of pixels is fetched once per channel and
    /// then serves every tap. Positions are the inner loops, so pixels stay in the first level if the panel does, weights if those of a tile do.
    fn second_level(&self, mq: f64, mrow: f64, moc: f64, mr: f64) -> f64 {
        let (plan, m) = (self.plan, self.m);
        let x = self.rank - 1;
        let bytes = self.p.elem.bytes() as f64;
        let taps = |a: usize| self.taps(a).max(1.0);
        let rows = if self.rank > 1 { mrow + taps(x - 1) - 1.0 } else { 1.0 };
        let all: f64 = (0..self.rank).map(taps).product();
        // Rows that are read at several shifts, or from within a line, touch one line more; in place it is the image that says where they begin.
        let within = !plan.panel && (self.at_run_time || self.input[x] * bytes % LINE != 0.0);
        let shifted = plan.vector == "qx" && (taps(x) > 1.0 || within || self.p.pad_begin[x] % self.p.stride[x] as i64 != 0);
        let columns = (mq + taps(x) - 1.0) * bytes;
        let columns = match plan.vector.as_str() {
            "qx" if shifted => columns + LINE,
            // Half a line comes whole, and the other half is for another tile.
            "qx" => (columns / LINE).ceil() * LINE,
            _ => columns,
        };
        let pixels = columns * rows * (0..x.saturating_sub(1)).map(taps).product::<f64>() / all;
        let weights = moc * mr * bytes;
        let part = self.part();
        let held = (pixels + weights) * part * all;
        let panel = if plan.panel { self.panel() * bytes } else { self.plane(self.input) * self.ic } * part / self.ic;
        let first = m.l1 as f64 * 0.9;
        let rate = if plan.vector == "qx" { m.rates.rows } else { COLUMNS };
        let fetched = if held.max(panel + weights * part * all) > first { pixels / rate } else { 0.0 };
        // Weights that leave the second level between one tile and the next of the same channels come from further away.
        let rate = if weights * part * all + panel > m.l2 as f64 * m.rates.holds && self.sweeps() > 1.0 {
            m.rates.weights[1]
        } else {
            m.rates.weights[0]
        };
        fetched + if held > first { weights / rate } else { 0.0 }
    }

    /// Tiles of positions of one block and phase: how often its weights are read.
    fn sweeps(&self) -> f64 {
        let along = |a: usize| {
            let block = if self.plan.block[a] > 0 { self.plan.block[a] as f64 } else { self.output[a] / self.p.stride[a] as f64 };
            (block / self.extent('q', a)).ceil()
        };
        (0..self.rank).map(along).product()
    }

    /// Input channels that are summed at a time.
    fn part(&self) -> f64 {
        if self.plan.reduction > 0 { self.plan.reduction as f64 } else { self.ic }
    }

    fn gather(&self) -> Cost {
        let plan = self.plan;
        let x = self.rank - 1;
        let lanes = plan.lanes as f64;
        let row = |role| if self.rank > 1 { self.extent(role, x - 1) } else { 1.0 };
        let (moc, mq, mrow) = (plan.extent("oc") as f64, self.extent('q', x), row('q'));
        let mr: f64 = (0..self.rank).map(|a| self.extent('r', a)).product();
        let groups = plan.extent("g") as f64;
        let vectors = moc * mq * mrow * mr * groups / lanes;
        let tiles = self.tiles(moc);
        let steps = self.ic * (0..self.rank).map(|a| self.taps(a)).product::<f64>();
        // Phases whose windows differ read vectors of their own; shifted vectors straddle cache lines.
        let shared = plan.aligned || (0..self.rank).all(|a| self.p.pad_begin[a] % self.p.stride[a] as i64 == 0 && self.p.dilation[a] == 1);
        let straddle = 1.0 + if self.taps(x) > 1.0 || !shared { plan.lanes as f64 * self.p.elem.bytes() as f64 / 64.0 } else { 0.0 };
        // Tiles of all phases with few products for each load shift them out of whole lines instead.
        let rows = mq / lanes * mrow * self.rows_read(moc, mr);
        let whole = (0..self.rank).all(|a| self.extent('r', a) == self.p.stride[a] as f64);
        let shifts = self.m.isa == Isa::Avx512 && plan.panel && !shared && moc == 1.0 && whole && vectors <= FEW_PRODUCTS * rows;
        let straddle = if shifts { straddle.min(self.m.rates.shifted) } else { straddle };
        let (operands, scalars) = match plan.vector.as_str() {
            "qx" => (mq / lanes * mrow * straddle * if shared { 1.0 } else { self.rows_read(moc, mr) }, moc * mr),
            "oc" => (moc / lanes * mr, if shared { mq * mrow } else { mq * mrow * mr }),
            // Every multiply-add has a pixel of its own.
            "g" => (groups / lanes * mr * (1.0 + mq * mrow), 0.0),
            _ => (mr / lanes, mq * mrow),
        };
        // What is read in place past the end of a row is loaded under a mask.
        let ragged = self.at_run_time || self.input[x] % mq != 0.0 || !candidates::no_halo(self.p);
        let masked = if !plan.panel && plan.vector == "qx" && ragged { operands / straddle } else { 0.0 };
        // Masks that are vectors take the slots of other instructions, and a tile makes its own.
        let (masks, beside, made) = match self.m.isa {
            Isa::Avx2 if masked > 0.0 => (0.0, masked * MASK_VECTOR, mq / lanes * self.taps(x).ceil() * MAKE_MASK),
            _ => (masked * MASK, 0.0, 0.0),
        };
        // Lines of narrower vectors come as fast as ever where units are narrow: a step has fewer of them (timed on Zen 4).
        let fetch = self.second_level(mq, mrow, moc, mr).max(masks) * self.m.passes;
        let step = step(self.m, vectors, operands, scalars, fetch) + beside;
        // Guarded taps outside the input are skipped; with a panel they are multiplied by the halo.
        let steps = if plan.bounded { steps * candidates::bounded_share(self.p, plan, self.landing) } else { steps };
        // Taps along the lanes are not tested, but masked.
        let tested = steps / self.ic / if plan.vector == "qx" { self.taps(x) } else { 1.0 };
        let (steps, tests) = if plan.panel { (steps, 0.0) } else { (steps * self.landing.iter().product::<f64>(), tested * GUARD) };
        // In place, every channel of every tile is another page.
        let far = self.plane(self.input) * self.ic * self.p.groups as f64 * self.batch > self.m.l3 as f64 * 0.6;
        let apart = !plan.panel && plan.vector == "qx" && self.ic > 1.0;
        let lines = (mq * self.p.elem.bytes() as f64 / LINE).ceil() * mrow;
        // A few rows that are read from end to end are fetched ahead.
        let rows: f64 = (0..x).map(|a| self.extent('q', a)).product();
        let streamed = plan.streams_rows() && plan.reduction as f64 * rows <= self.m.rates.streams as f64;
        // Of small channels several share a page.
        let share = (self.plane(self.input) / PAGE_BYTES).min(1.0);
        let another = if share == 1.0 { PAGE[usize::from(far)] } else { 0.0 };
        let pages = if apart && !streamed { self.ic * (another + lines * self.m.rates.line * share) } else { 0.0 };
        // Between two parts of the reduction the accumulators wait in memory: short parts need them soon, from the second level.
        let sums = vectors * lanes * self.p.elem.bytes() as f64 / LINE;
        let waits = (self.ic / self.part() - 1.0) * if streamed { SUMS * sums + 2.0 * CALL } else { 2.0 * vectors + CALL };
        let compute = tiles * (steps * step + tests + pages + waits + made + CALL);

        let side_by_side = match (plan.vector.as_str(), self.p.layout) {
            ("qx", Layout::ChannelsFirst) => self.p.stride[x] as f64 == self.extent('r', x),
            ("oc" | "g", Layout::ChannelsLast) | ("rx", Layout::ChannelsFirst) => true,
            _ => false,
        };
        let interleave = match plan.vector.as_str() {
            "qx" if self.extent('r', x) > 4.0 => 4.0,
            // Pixels of one phase leave gaps in memory that the other phases come back for.
            "g" => self.p.stride[x] as f64 / self.extent('r', x),
            _ => INTERLEAVE,
        };
        let each = match (plan.vector.as_str(), self.p.layout) {
            ("qx", Layout::ChannelsLast) => lane_apart(self.p, self.m, plan.extent("oc")),
            _ => self.strided(moc),
        };
        let store = tiles * vectors * self.m.passes * if side_by_side { interleave } else { lanes * each };
        let runs = if plan.vector == "qx" { vectors * lanes / (mq * self.extent('r', x)) } else { 0.0 };
        let store = store + tiles * self.late(vectors, runs) + self.hanging();
        let panel = if plan.panel { self.fill() } else { 0.0 };
        let blocks = self.blocks();
        // Bytes of weights per cycle while they run ahead of the tile.
        let demand = moc * mr * self.p.elem.bytes() as f64 / step;
        Cost { compute, store, panel, traffic: self.traffic(blocks, demand, if plan.panel { (self.oc / moc).ceil() } else { 0.0 }) }
    }

    /// What a tile of so many vectors, in so many runs of neighbouring outputs, waits for lines of the output.
    fn late(&self, vectors: f64, runs: f64) -> f64 {
        let bytes = self.p.elem.bytes() as f64;
        let far = self.batch * self.p.c_out as f64 * self.plane(self.output) > self.m.l2 as f64;
        let lines = vectors * self.plan.lanes as f64 * bytes / LINE;
        if far { (lines - self.m.rates.under_way).max(0.0) * LATE + runs * RUN } else { 0.0 }
    }

    /// Storing what tiles with columns along the lanes have beyond the ends of rows, without masks: only the lanes inside, one by one.
    fn hanging(&self) -> f64 {
        let (plan, x) = (self.plan, self.rank - 1);
        if plan.vector != "qx" || self.m.isa != Isa::Avx2 || self.p.layout == Layout::ChannelsLast {
            return 0.0;
        }
        let shifted = plan.aligned && self.p.pad_begin[x] % self.p.stride[x] as i64 != 0;
        let span = self.output[x] / self.p.stride[x] as f64;
        let ends = f64::from(u8::from(shifted)) + f64::from(u8::from(shifted || span % plan.lanes as f64 != 0.0));
        let rows = self.batch * self.p.c_out as f64 * self.output[..x].iter().product::<f64>();
        rows * ends * HANGING
    }

    /// Vectors loaded for each tap, for one that would do if the windows of all phases were the same. They are at most one position apart, so that phases
    /// share the pixels of neighbouring taps; but loads come together only where taps are written out and no register holds the pixels of one phase for
    /// several channels.
    fn rows_read(&self, moc: f64, mr: f64) -> f64 {
        if moc > 1.0 || self.ic == 1.0 {
            return mr;
        }
        let written = candidates::written_out(self.p, self.plan, self.plan.bounded);
        let along = |a: usize| {
            let (phases, taps) = (self.extent('r', a), self.taps(a).ceil());
            if written[a] { phases.min((taps + 1.0) / taps) } else { phases }
        };
        (0..self.rank).map(along).product()
    }

    /// Bytes of one channel.
    fn plane(&self, spatial: &[f64]) -> f64 {
        spatial.iter().product::<f64>() * self.p.elem.bytes() as f64
    }

    /// Storing one element of a vector whose lanes are planes apart. Planes a multiple of a page apart fall into the same cache sets, and lines
    /// leave the cache between one element and the next.
    fn strided(&self, moc: f64) -> f64 {
        let plane = self.plane(self.output);
        let collides = self.plan.vector == "oc" && plane % 2048.0 == 0.0 && plane >= 8192.0;
        // All phases of a row together fill pieces; with columns along the lanes some of them do.
        let x = self.rank - 1;
        let phases = self.extent('r', x);
        let run = match self.plan.vector.as_str() {
            "qx" => phases,
            "oc" if phases == self.p.stride[x] as f64 => phases * self.extent('q', x),
            _ => 1.0,
        };
        let most = 16.0 / self.p.elem.bytes() as f64;
        let each = if run > 1.0 { PIECE * (run / most).ceil() / run } else { STRIDED };
        each * if !collides {
            1.0
        } else if moc > 16.0 {
            12.0
        } else {
            3.0
        }
    }

    /// How many tiles: positions of each phase, rounded up to tiles, times phases and channels.
    fn tiles(&self, moc: f64) -> f64 {
        let plan = self.plan;
        let groups = (self.p.groups as f64 / plan.extent("g") as f64).ceil();
        let mut tiles = self.batch * groups * (self.oc / moc).ceil();
        for a in 0..self.rank {
            let phases = self.p.stride[a] as f64 / self.extent('r', a);
            let shifted = plan.aligned && self.p.pad_begin[a] % self.p.stride[a] as i64 != 0;
            let span = self.output[a] / self.p.stride[a] as f64 + if shifted { 1.0 } else { 0.0 };
            let tile = self.extent('q', a);
            let block = if plan.block[a] > 0 { plan.block[a] as f64 } else { span };
            let whole = (span / block).floor();
            let rest = span - whole * block;
            tiles *= phases * (whole * (block / tile).ceil() + (rest / tile).ceil());
        }
        tiles
    }

    /// Blocks of positions, over the whole batch.
    fn blocks(&self) -> f64 {
        let along = |a: usize| match self.plan.block[a] {
            0 => 1.0,
            b => (self.output[a] / self.p.stride[a] as f64 / b as f64).ceil(),
        };
        self.batch * (0..self.rank).map(along).product::<f64>()
    }

    /// Elements of one panel, at most.
    fn panel(&self) -> f64 {
        self.with_halo(1.0)
    }

    /// The same with so many pixels more along each axis than the taps reach.
    fn with_halo(&self, more: f64) -> f64 {
        let halo = |a: usize| (self.taps(a).ceil() - 1.0).max(0.0) * self.p.dilation[a] as f64 + more;
        let along = |a: usize| halo(a) + if self.plan.block[a] > 0 { self.plan.block[a] as f64 } else { self.input[a] };
        let channels = if self.plan.extent("g") > 1 { self.p.c_in as f64 } else { self.ic };
        channels * (0..self.rank).map(along).product::<f64>()
    }

    fn fill(&self) -> f64 {
        let panels = if self.plan.extent("g") > 1 { 1.0 } else { self.p.groups as f64 };
        let elements = self.panel() * self.blocks() * panels * self.plan.channel_parts as f64;
        let turned = ["oc", "g"].contains(&self.plan.vector.as_str()) != (self.p.layout == Layout::ChannelsLast);
        // A channel's piece of a block starts on a page of its own, ahead of which nothing is fetched.
        let input = self.plane(self.input) * self.ic * self.p.groups as f64;
        let starts = if input > self.m.l2 as f64 { self.ic * self.blocks() * self.p.groups as f64 * self.m.rates.start } else { 0.0 };
        let cold = self.panel() * self.p.elem.bytes() as f64 * self.m.rates.cold / self.m.rate(input);
        elements * if turned { self.m.rates.turned } else { self.m.rates.fill / self.plan.lanes as f64 } + starts + cold
    }

    fn scatter(&self) -> Cost {
        let plan = self.plan;
        let x = self.rank - 1;
        let lanes = plan.lanes as f64;
        let (moc, mk) = (plan.extent("oc") as f64, self.extent('k', x));
        let vectors = moc * mk / lanes;
        let patches: f64 = self.batch * self.input.iter().product::<f64>() * self.p.groups as f64 * (self.oc / moc).ceil();
        let kernel: f64 = self.p.kernel[..x].iter().map(|k| *k as f64).product::<f64>() * (self.p.kernel[x] as f64 / mk).ceil();
        // Every weight vector is loaded for one multiply-add.
        let step = step(self.m, vectors, vectors, 1.0, 0.0);
        let compute = patches * kernel * (self.ic * step + CALL);
        let side_by_side =
            plan.vector == "oc" && self.p.layout == Layout::ChannelsLast || plan.vector != "oc" && self.p.layout == Layout::ChannelsFirst;
        let store = patches * kernel * vectors * self.m.passes * if side_by_side { 4.0 } else { lanes * 2.0 * STRIDED };
        let outputs = self.batch * self.p.c_out as f64 * self.output.iter().product::<f64>();
        // The weights of a tile's channels are read again for every pixel.
        let slice = self.ic * kernel * moc * mk * self.p.elem.bytes() as f64;
        let again = patches * slice * 0.5 / self.m.rate(slice);
        let demand = moc * mk * self.p.elem.bytes() as f64 / step;
        Cost { compute: compute.max(again), store, panel: outputs / lanes * 4.0, traffic: self.traffic(1.0, demand, 0.0) }
    }

    /// Weights are read again for every block of positions, the panel for every tile of channels and phase.
    fn traffic(&self, blocks: f64, demand: f64, channel_tiles: f64) -> f64 {
        let bytes = self.p.elem.bytes() as f64;
        let weights = self.p.weight_shape().iter().map(|d| *d as f64).product::<f64>() * bytes;
        let outputs = self.batch * self.p.c_out as f64 * self.output.iter().product::<f64>() * bytes;
        let inputs = self.batch * self.p.c_in as f64 * self.input.iter().product::<f64>() * bytes;
        // How much of the time reading weights runs ahead of the tile.
        let far = weights > self.m.l3 as f64 * 0.6;
        let exposed = if far { 0.4 } else { 0.1 };
        // How much longer they take than the tile that needs them; if all tensors together leave the last level, every block has them from memory.
        let gone = weights + outputs + inputs > self.m.l3 as f64 * 0.5 && blocks > 1.0;
        let late =
            if weights > self.m.l2 as f64 { (1.0 / self.m.rates.weights[1 + usize::from(gone)] - 1.0 / demand).max(0.0) } else { 0.0 };
        let streamed = blocks * weights * late.max(exposed / self.m.rate(weights));
        let panel = self.panel() * bytes;
        let phases: f64 = (0..self.rank).map(|a| self.p.stride[a] as f64 / self.extent('r', a)).product();
        let passes = blocks * self.p.groups as f64 * channel_tiles * phases;
        // A line of channels serves so many steps that it comes in time; a pixel of a tile with phases along the lanes serves one vector only.
        let exposed = match self.plan.vector.as_str() {
            "qx" => 0.5,
            "rx" => 1.0,
            _ => 0.1,
        };
        let reread = match self.plan.vector.as_str() {
            _ if channel_tiles > 0.0 && panel > self.m.l2 as f64 * 0.6 => passes * panel * exposed / self.m.rates.l3,
            "qx" => passes * panel * SWEEP / self.m.rates.l2,
            _ => 0.0,
        };
        // Outputs on their way through the second level drive out of it what is read again.
        let again = channel_tiles > 0.0 && outputs > self.m.l2 as f64;
        let held = self.with_halo(if candidates::no_halo(self.p) { 0.0 } else { 1.0 }) * bytes / self.m.l2 as f64;
        let crowded = if again { outputs / LINE * self.m.rates.crowded * (held - ROOMY).max(0.0) } else { 0.0 };
        streamed + reread + crowded
    }
}

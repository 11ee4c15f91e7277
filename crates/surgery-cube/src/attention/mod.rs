//! Causal attention inside each segment, forward and backward, without the matrix of scores (arXiv 2205.14135).
//!
//! A cube keeps a tile of queries (or of keys) of one head in shared memory and loops over the tiles of keys (or queries)
//! that some of its rows see. Its units form a square. Each unit has the scores of every `side`-th row and column, and the
//! sums of every `side`-th value of a head. Everything is computed in f32, for any dtype of the tensors. No sum is divided
//! among several cubes, so sums have a fixed order.

mod backward;
mod forward;

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::tensor::contiguous;

/// Queries, keys and values, `[rows, columns, heads, head_dim]` of one dtype, and the keys that each query sees.
#[derive(Debug, Clone)]
pub(crate) struct Inputs<R: CubeRuntime> {
    queries: CubeTensor<R>,
    keys: CubeTensor<R>,
    values: CubeTensor<R>,
    sight: CubeTensor<R>,
}

/// The results of the forward pass that the backward pass needs.
#[derive(Debug, Clone)]
pub(crate) struct Attended<R: CubeRuntime> {
    out: CubeTensor<R>,
    log_sums: CubeTensor<R>,
}

impl<R: CubeRuntime> Inputs<R> {
    /// `sight` is [`Placement::sight`](surgery_core::placement::Placement::sight).
    pub fn new(
        queries: CubeTensor<R>,
        keys: CubeTensor<R>,
        values: CubeTensor<R>,
        sight: CubeTensor<R>,
    ) -> Self {
        let [queries, keys, values, sight] = [queries, keys, values, sight].map(contiguous);
        Self { queries, keys, values, sight }
    }

    /// Number of tokens, of heads, and of values of a head.
    fn shape(tensor: &CubeTensor<R>) -> [usize; 3] {
        let shape = tensor.meta.shape();
        [shape[0] * shape[1], shape[2], shape[3]]
    }
}

/// The highest score of a query that sees no key; below any score.
const LOWEST: f32 = -1e30;
/// Number of values of a query in [`Placement::sight`](surgery_core::placement::Placement::sight).
const SIGHT: usize = 5;

/// The sizes of a cube's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    /// Number of queries or keys.
    rows: usize,
    /// Number of values of a head.
    size: usize,
    /// Number of units along an edge of their square.
    side: usize,
    /// Number of rows of a unit.
    own: usize,
    /// Number of values of a head that belong to a unit.
    values: usize,
}

impl Tile {
    /// The largest tile for which `tiles` tiles and the scores fit into a cube's shared memory.
    fn new<R: CubeRuntime>(client: &ComputeClient<R>, size: usize, tiles: usize) -> Self {
        let room = client.properties().hardware.max_shared_memory_size / size_of::<f32>();
        let fits = |rows: &usize| tiles * rows * (size + 1) + rows * (rows + 1) <= room;
        let rows = [32, 16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let side = rows.min(16);
        Self { rows, size, side, own: rows / side, values: size.div_ceil(side) }
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_1d((self.side * self.side) as u32)
    }
}

/// Loads a tile of `[tokens, heads, size]` from token `first` on, with 0 after the last token. Rows are separated by one
/// value, so that units that read down a column do not wait for each other.
#[cube]
fn load<E: Float>(
    from: &Array<E>,
    into: &mut SharedMemory<f32>,
    first: usize,
    tokens: usize,
    heads: usize,
    head: usize,
    #[comptime] tile: Tile,
) {
    let mut i = UNIT_POS as usize;
    while i < tile.rows * tile.size {
        let (row, column) = (i / tile.size, i % tile.size);
        let token = first + row;
        let mut value = f32::new(0.0);
        if token < tokens {
            value = f32::cast_from(from[(token * heads + head) * tile.size + column]);
        }
        into[row * (tile.size + 1) + column] = value;
        i += tile.side * tile.side;
    }
}

/// Computes a unit's products of rows of `a` and rows of `b`, `[own, own]`.
#[cube]
fn products(
    a: &SharedMemory<f32>,
    b: &SharedMemory<f32>,
    out: &mut Array<f32>,
    down: usize,
    across: usize,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for i in 0..tile.own * tile.own {
        out[i] = f32::new(0.0);
    }
    for k in 0..tile.size {
        #[unroll]
        for i in 0..tile.own {
            let value = a[(down + i * tile.side) * (tile.size + 1) + k];
            #[unroll]
            for j in 0..tile.own {
                out[i * tile.own + j] += value * b[(across + j * tile.side) * (tile.size + 1) + k];
            }
        }
    }
}

/// Adds the rows of `b`, weighted by rows of `weights` (by columns if `transposed`), to a unit's sums, `[own, values]`.
#[cube]
fn add_weighted(
    weights: &SharedMemory<f32>,
    b: &SharedMemory<f32>,
    sums: &mut Array<f32>,
    down: usize,
    across: usize,
    #[comptime] transposed: bool,
    #[comptime] tile: Tile,
) {
    for k in 0..tile.rows {
        #[unroll]
        for i in 0..tile.own {
            let row = down + i * tile.side;
            let weight = if comptime!(transposed) {
                weights[k * (tile.rows + 1) + row]
            } else {
                weights[row * (tile.rows + 1) + k]
            };
            #[unroll]
            for j in 0..tile.values {
                let column = across + j * tile.side;
                if column < tile.size {
                    sums[i * tile.values + j] += weight * b[k * (tile.size + 1) + column];
                }
            }
        }
    }
}

/// Writes a unit's sums, each row times its factor, to `[tokens, heads, size]`.
#[cube]
fn store<E: Float>(
    sums: &Array<f32>,
    factors: &Array<f32>,
    into: &mut Array<E>,
    first: usize,
    tokens: usize,
    heads: usize,
    head: usize,
    #[comptime] tile: Tile,
) {
    let (down, across) = (UNIT_POS as usize / tile.side, UNIT_POS as usize % tile.side);
    #[unroll]
    for i in 0..tile.own {
        let token = first + down + i * tile.side;
        #[unroll]
        for j in 0..tile.values {
            let column = across + j * tile.side;
            if token < tokens && column < tile.size {
                let value = sums[i * tile.values + j] * factors[i];
                into[(token * heads + head) * tile.size + column] = E::cast_from(value);
            }
        }
    }
}

/// Loads the sight of the queries of a unit's rows, `[own, 4]`. Rows after the last query see no key.
#[cube]
fn look(
    sight: &Array<u32>,
    own: &mut Array<u32>,
    first: usize,
    tokens: usize,
    down: usize,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for i in 0..tile.own {
        let query = first + down + i * tile.side;
        #[unroll]
        for part in 0..4usize {
            own[i * 4 + part] = 0u32;
            if query < tokens {
                own[i * 4 + part] = sight[query * SIGHT + part];
            }
        }
    }
}

/// Whether row i of a unit sees a key.
#[cube]
fn sees(own: &Array<u32>, #[comptime] i: usize, key: usize) -> bool {
    let key = key as u32;
    (key >= own[i * 4] && key < own[i * 4 + 1]) || (key >= own[i * 4 + 2] && key < own[i * 4 + 3])
}

/// The bounds of the keys that the queries of a tile see.
#[cube]
fn seen_by_tile(sight: &Array<u32>, first: usize, tokens: usize, #[comptime] tile: Tile) -> (usize, usize) {
    let (mut from, mut to) = (u32::MAX.runtime(), 0u32.runtime());
    for query in first..min(first + tile.rows, tokens) {
        from = min(from, min(sight[query * SIGHT], sight[query * SIGHT + 2]));
        to = max(to, sight[query * SIGHT + 3]);
    }
    (from as usize, to as usize)
}

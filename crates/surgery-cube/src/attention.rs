//! Causal attention inside each segment, forward and backward, without the matrix of scores (arXiv 2205.14135).
//!
//! A cube holds a tile of queries (or of keys) of one head in shared memory and goes over the tiles of keys (or queries)
//! that some of it can see. Its units stand in a square; each has the scores of every `side`-th row and column, and the
//! sums of every `side`-th value of a head. Everything is computed in f32, whatever the dtype of what is read and
//! written. Nothing is added up by several cubes, so sums have one order.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use surgery_core::burn::tensor::DType;

use crate::tensor::{Cubes, array, contiguous, dtype, empty, empty_like};

/// What a query that sees nothing has for its highest score; below any score.
const LOWEST: f32 = -1e30;
/// What [`Placement::sight`](surgery_core::placement::Placement::sight) has of a query.
const SIGHT: usize = 5;

/// The shape of a cube's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    /// Queries or keys.
    rows: usize,
    /// Values of a head.
    size: usize,
    /// Units along each edge of their square.
    side: usize,
    /// Rows of a unit.
    own: usize,
    /// Values of a head that are a unit's.
    values: usize,
}

impl Tile {
    /// The largest tile of which `held` fit a cube's shared memory, with the scores.
    fn new<R: CubeRuntime>(client: &ComputeClient<R>, size: usize, held: usize) -> Self {
        let room = client.properties().hardware.max_shared_memory_size / size_of::<f32>();
        let fits = |rows: &usize| held * rows * (size + 1) + rows * (rows + 1) <= room;
        let rows = [32, 16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let side = rows.min(16);
        Self { rows, size, side, own: rows / side, values: size.div_ceil(side) }
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_1d((self.side * self.side) as u32)
    }
}

/// Reads a tile of `[tokens, heads, size]` from token `first` on; what is behind the last token is 0. One value lies
/// between the rows, so that units that read down a column do not wait for each other.
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

/// A unit's products of rows of `a` and rows of `b`, `[own, own]`.
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

/// Adds what the rows of `b` give, weighted by rows of `weights` (by columns, where `transposed`), to a unit's sums,
/// `[own, values]`.
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

/// Reads what the queries of a unit's rows see, `[own, 4]`; nothing for those behind the last.
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

/// The keys that some query of a tile sees lie between these.
#[cube]
fn seen_by_tile(sight: &Array<u32>, first: usize, tokens: usize, #[comptime] tile: Tile) -> (usize, usize) {
    let (mut from, mut to) = (u32::MAX.runtime(), 0u32.runtime());
    for query in first..min(first + tile.rows, tokens) {
        from = min(from, min(sight[query * SIGHT], sight[query * SIGHT + 2]));
        to = max(to, sight[query * SIGHT + 3]);
    }
    (from as usize, to as usize)
}

/// Attention of a tile of queries of a head, and the logarithm of each query's normaliser, `[tokens, heads]`.
#[cube(launch)]
fn forward_kernel<E: Float>(
    queries: &Array<E>,
    keys: &Array<E>,
    values: &Array<E>,
    sight: &Array<u32>,
    out: &mut Array<E>,
    log_sums: &mut Array<f32>,
    heads: u32,
    group: u32,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(E)] _dtype: StorageType,
) {
    let (heads, head) = (heads as usize, CUBE_POS_Y as usize);
    let (kv_heads, kv_head) = (heads / group as usize, head / group as usize);
    let (tokens, num_keys) = (queries.len() / (heads * tile.size), keys.len() / (kv_heads * tile.size));
    let first = CUBE_POS_X as usize * tile.rows;
    let (down, across) = (UNIT_POS as usize / tile.side, UNIT_POS as usize % tile.side);

    let mut q = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    // Keys, then values.
    let mut kv = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut s = SharedMemory::<f32>::new(tile.rows * (tile.rows + 1));
    let mut scores = Array::<f32>::new(tile.own * tile.own);
    let mut sums = Array::<f32>::new(tile.own * tile.values);
    let mut tops = Array::<f32>::new(tile.own);
    let mut totals = Array::<f32>::new(tile.own);
    let mut own = Array::<u32>::new(tile.own * 4);
    #[unroll]
    for i in 0..tile.own {
        tops[i] = f32::new(LOWEST);
        totals[i] = f32::new(0.0);
        #[unroll]
        for j in 0..tile.values {
            sums[i * tile.values + j] = f32::new(0.0);
        }
    }
    look(sight, &mut own, first, tokens, down, tile);
    load::<E>(queries, &mut q, first, tokens, heads, head, tile);

    let (from, to) = seen_by_tile(sight, first, tokens, tile);
    let mut start = from;
    while start < to {
        // All have read the values of the tile before.
        sync_cube();
        load::<E>(keys, &mut kv, start, num_keys, kv_heads, kv_head, tile);
        sync_cube();
        products(&q, &kv, &mut scores, down, across, tile);
        #[unroll]
        for i in 0..tile.own {
            #[unroll]
            for j in 0..tile.own {
                let column = across + j * tile.side;
                let score = scores[i * tile.own + j] * scale;
                let visible = sees(&own, i, start + column);
                s[(down + i * tile.side) * (tile.rows + 1) + column] =
                    select(visible, score, f32::new(LOWEST));
            }
        }
        sync_cube();
        load::<E>(values, &mut kv, start, num_keys, kv_heads, kv_head, tile);
        #[unroll]
        for i in 0..tile.own {
            let row = (down + i * tile.side) * (tile.rows + 1);
            let mut top = tops[i];
            for k in 0..tile.rows {
                top = max(top, s[row + k]);
            }
            let shrink = (tops[i] - top).exp();
            tops[i] = top;
            totals[i] = totals[i] * shrink;
            #[unroll]
            for j in 0..tile.values {
                sums[i * tile.values + j] = sums[i * tile.values + j] * shrink;
            }
        }
        sync_cube();
        #[unroll]
        for i in 0..tile.own {
            #[unroll]
            for j in 0..tile.own {
                let at = (down + i * tile.side) * (tile.rows + 1) + across + j * tile.side;
                let score = s[at];
                s[at] = select(score > LOWEST, (score - tops[i]).exp(), f32::new(0.0));
            }
        }
        sync_cube();
        #[unroll]
        for i in 0..tile.own {
            let row = (down + i * tile.side) * (tile.rows + 1);
            for k in 0..tile.rows {
                totals[i] += s[row + k];
            }
        }
        add_weighted(&s, &kv, &mut sums, down, across, false, tile);
        start += tile.rows;
    }
    #[unroll]
    for i in 0..tile.own {
        let query = first + down + i * tile.side;
        if query < tokens && across == 0 {
            log_sums[query * heads + head] = tops[i] + totals[i].ln();
        }
        // No factor of an undefined row is ever stored.
        totals[i] = 1.0 / totals[i];
    }
    store::<E>(&sums, &totals, out, first, tokens, heads, head, tile);
}

/// `Σ g · out` of each query and head, `[tokens, heads]`: what the gradient of a score loses for the normaliser.
#[cube(launch)]
fn delta_kernel<E: Float>(
    out: &Array<E>,
    gradient: &Array<E>,
    deltas: &mut Array<f32>,
    size: u32,
    #[define(E)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < deltas.len() {
        let start = ABSOLUTE_POS * size as usize;
        let mut sum = f32::new(0.0);
        for i in start..start + size as usize {
            sum += f32::cast_from(out[i]) * f32::cast_from(gradient[i]);
        }
        deltas[ABSOLUTE_POS] = sum;
    }
}

/// From a unit's scores and products of gradient and values, to the weights `p = exp(score - log_sum)` and the gradients
/// of the scores, `p (gradient · value - delta) scale`.
#[cube]
fn weights_and_gradients(
    scores: &mut Array<f32>,
    gradients: &mut Array<f32>,
    own: &Array<u32>,
    log_sums: &Array<f32>,
    deltas: &Array<f32>,
    // The first query and key of the tiles, and all queries.
    first: usize,
    start: usize,
    tokens: usize,
    heads: usize,
    head: usize,
    scale: f32,
    #[comptime] tile: Tile,
) {
    let (down, across) = (UNIT_POS as usize / tile.side, UNIT_POS as usize % tile.side);
    #[unroll]
    for i in 0..tile.own {
        let query = first + down + i * tile.side;
        let (mut log_sum, mut delta) = (f32::new(0.0), f32::new(0.0));
        if query < tokens {
            log_sum = log_sums[query * heads + head];
            delta = deltas[query * heads + head];
        }
        #[unroll]
        for j in 0..tile.own {
            let at = comptime!(i * tile.own + j);
            let visible = sees(own, i, start + across + j * tile.side);
            let weight = select(visible, (scores[at] * scale - log_sum).exp(), f32::new(0.0));
            scores[at] = weight;
            gradients[at] = weight * (gradients[at] - delta) * scale;
        }
    }
}

/// Writes a unit's share of a tile to where all can read it.
#[cube]
fn share(from: &Array<f32>, into: &mut SharedMemory<f32>, #[comptime] tile: Tile) {
    let (down, across) = (UNIT_POS as usize / tile.side, UNIT_POS as usize % tile.side);
    #[unroll]
    for i in 0..tile.own {
        #[unroll]
        for j in 0..tile.own {
            into[(down + i * tile.side) * (tile.rows + 1) + across + j * tile.side] = from[i * tile.own + j];
        }
    }
}

/// The gradient of a tile of queries of a head.
#[cube(launch)]
fn queries_kernel<E: Float>(
    queries: &Array<E>,
    keys: &Array<E>,
    values: &Array<E>,
    gradient: &Array<E>,
    sight: &Array<u32>,
    log_sums: &Array<f32>,
    deltas: &Array<f32>,
    g_queries: &mut Array<E>,
    heads: u32,
    group: u32,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(E)] _dtype: StorageType,
) {
    let (heads, head) = (heads as usize, CUBE_POS_Y as usize);
    let (kv_heads, kv_head) = (heads / group as usize, head / group as usize);
    let (tokens, num_keys) = (queries.len() / (heads * tile.size), keys.len() / (kv_heads * tile.size));
    let first = CUBE_POS_X as usize * tile.rows;
    let (down, across) = (UNIT_POS as usize / tile.side, UNIT_POS as usize % tile.side);

    let mut q = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut g = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut k = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut v = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut s = SharedMemory::<f32>::new(tile.rows * (tile.rows + 1));
    let mut scores = Array::<f32>::new(tile.own * tile.own);
    let mut gradients = Array::<f32>::new(tile.own * tile.own);
    let mut sums = Array::<f32>::new(tile.own * tile.values);
    let mut ones = Array::<f32>::new(tile.own);
    let mut own = Array::<u32>::new(tile.own * 4);
    #[unroll]
    for i in 0..tile.own {
        ones[i] = f32::new(1.0);
        #[unroll]
        for j in 0..tile.values {
            sums[i * tile.values + j] = f32::new(0.0);
        }
    }
    look(sight, &mut own, first, tokens, down, tile);
    load::<E>(queries, &mut q, first, tokens, heads, head, tile);
    load::<E>(gradient, &mut g, first, tokens, heads, head, tile);

    let (from, to) = seen_by_tile(sight, first, tokens, tile);
    let mut start = from;
    while start < to {
        sync_cube();
        load::<E>(keys, &mut k, start, num_keys, kv_heads, kv_head, tile);
        load::<E>(values, &mut v, start, num_keys, kv_heads, kv_head, tile);
        sync_cube();
        products(&q, &k, &mut scores, down, across, tile);
        products(&g, &v, &mut gradients, down, across, tile);
        weights_and_gradients(
            &mut scores,
            &mut gradients,
            &own,
            log_sums,
            deltas,
            first,
            start,
            tokens,
            heads,
            head,
            scale,
            tile,
        );
        share(&gradients, &mut s, tile);
        sync_cube();
        add_weighted(&s, &k, &mut sums, down, across, false, tile);
        start += tile.rows;
    }
    store::<E>(&sums, &ones, g_queries, first, tokens, heads, head, tile);
}

/// The gradients of a tile of keys and values of a head, from all queries that see some of them. For texts without a
/// past, where these are the tokens from a key to the end of its segment.
#[cube(launch)]
fn keys_kernel<E: Float>(
    queries: &Array<E>,
    keys: &Array<E>,
    values: &Array<E>,
    gradient: &Array<E>,
    sight: &Array<u32>,
    log_sums: &Array<f32>,
    deltas: &Array<f32>,
    g_keys: &mut Array<E>,
    g_values: &mut Array<E>,
    heads: u32,
    group: u32,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(E)] _dtype: StorageType,
) {
    let (heads, group, kv_head) = (heads as usize, group as usize, CUBE_POS_Y as usize);
    let kv_heads = heads / group;
    let (tokens, num_keys) = (queries.len() / (heads * tile.size), keys.len() / (kv_heads * tile.size));
    let first_key = CUBE_POS_X as usize * tile.rows;
    let (down, across) = (UNIT_POS as usize / tile.side, UNIT_POS as usize % tile.side);

    let mut q = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut g = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut k = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut v = SharedMemory::<f32>::new(tile.rows * (tile.size + 1));
    let mut s = SharedMemory::<f32>::new(tile.rows * (tile.rows + 1));
    let mut scores = Array::<f32>::new(tile.own * tile.own);
    let mut gradients = Array::<f32>::new(tile.own * tile.own);
    let mut key_sums = Array::<f32>::new(tile.own * tile.values);
    let mut value_sums = Array::<f32>::new(tile.own * tile.values);
    let mut ones = Array::<f32>::new(tile.own);
    let mut own = Array::<u32>::new(tile.own * 4);
    #[unroll]
    for i in 0..tile.own {
        ones[i] = f32::new(1.0);
        #[unroll]
        for j in 0..tile.values {
            key_sums[i * tile.values + j] = f32::new(0.0);
            value_sums[i * tile.values + j] = f32::new(0.0);
        }
    }
    load::<E>(keys, &mut k, first_key, num_keys, kv_heads, kv_head, tile);
    load::<E>(values, &mut v, first_key, num_keys, kv_heads, kv_head, tile);

    let mut end = 0u32.runtime();
    for key in first_key..min(first_key + tile.rows, num_keys) {
        end = max(end, sight[key * SIGHT + 4]);
    }
    for head in kv_head * group..(kv_head + 1) * group {
        let mut first = first_key;
        while first < end as usize {
            sync_cube();
            load::<E>(queries, &mut q, first, tokens, heads, head, tile);
            load::<E>(gradient, &mut g, first, tokens, heads, head, tile);
            look(sight, &mut own, first, tokens, down, tile);
            sync_cube();
            products(&q, &k, &mut scores, down, across, tile);
            products(&g, &v, &mut gradients, down, across, tile);
            weights_and_gradients(
                &mut scores,
                &mut gradients,
                &own,
                log_sums,
                deltas,
                first,
                first_key,
                tokens,
                heads,
                head,
                scale,
                tile,
            );
            share(&scores, &mut s, tile);
            sync_cube();
            add_weighted(&s, &g, &mut value_sums, down, across, true, tile);
            sync_cube();
            share(&gradients, &mut s, tile);
            sync_cube();
            add_weighted(&s, &q, &mut key_sums, down, across, true, tile);
            first += tile.rows;
        }
    }
    store::<E>(&key_sums, &ones, g_keys, first_key, num_keys, kv_heads, kv_head, tile);
    store::<E>(&value_sums, &ones, g_values, first_key, num_keys, kv_heads, kv_head, tile);
}

/// Queries, keys and values, `[rows, columns, heads, head_dim]` of one dtype, and what each query sees.
#[derive(Debug, Clone)]
pub(crate) struct Inputs<R: CubeRuntime> {
    queries: CubeTensor<R>,
    keys: CubeTensor<R>,
    values: CubeTensor<R>,
    sight: CubeTensor<R>,
}

/// What the way back needs of the way there.
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

    /// Tokens, heads and values of each.
    fn shape(tensor: &CubeTensor<R>) -> [usize; 3] {
        let shape = tensor.meta.shape();
        [shape[0] * shape[1], shape[2], shape[3]]
    }

    /// As [`Kernels::attention`](surgery_core::kernels::Kernels::attention).
    pub fn forward(&self) -> (CubeTensor<R>, Attended<R>) {
        let Self { queries, keys, values, sight } = self.clone();
        let ([tokens, heads, size], [_, kv_heads, _]) = (Self::shape(&queries), Self::shape(&keys));
        let out = empty_like(&queries);
        let log_sums = empty(&queries, [tokens, heads], DType::F32);
        let (client, kind) = (queries.client.clone(), dtype(&queries));
        let tile = Tile::new(&client, size, 2);
        forward_kernel::launch::<R>(
            &client,
            CubeCount::Static(tokens.div_ceil(tile.rows) as u32, heads as u32, 1),
            tile.dim(),
            array(queries),
            array(keys),
            array(values),
            array(sight),
            array(out.clone()),
            array(log_sums.clone()),
            heads as u32,
            (heads / kv_heads) as u32,
            (size as f32).powf(-0.5),
            tile,
            kind,
        );
        (out.clone(), Attended { out, log_sums })
    }

    /// The gradients of queries, keys and values from that of what came out.
    pub fn backward(self, attended: Attended<R>, gradient: CubeTensor<R>) -> [CubeTensor<R>; 3] {
        let Self { queries, keys, values, sight } = self;
        let Attended { out, log_sums } = attended;
        let gradient = contiguous(gradient);
        let ([tokens, heads, size], [num_keys, kv_heads, _]) = (Self::shape(&queries), Self::shape(&keys));
        let (client, kind) = (queries.client.clone(), dtype(&queries));
        let deltas = empty(&queries, [tokens, heads], DType::F32);
        let cubes = Cubes::covering(tokens * heads);
        let (outs, g) = (array(out), array(gradient.clone()));
        delta_kernel::launch::<R>(
            &client,
            cubes.count,
            cubes.dim,
            outs,
            g,
            array(deltas.clone()),
            size as u32,
            kind,
        );
        let [g_queries, g_keys, g_values] = [&queries, &keys, &values].map(empty_like);
        let tile = Tile::new(&client, size, 4);
        let (group, scale) = ((heads / kv_heads) as u32, (size as f32).powf(-0.5));
        queries_kernel::launch::<R>(
            &client,
            CubeCount::Static(tokens.div_ceil(tile.rows) as u32, heads as u32, 1),
            tile.dim(),
            array(queries.clone()),
            array(keys.clone()),
            array(values.clone()),
            array(gradient.clone()),
            array(sight.clone()),
            array(log_sums.clone()),
            array(deltas.clone()),
            array(g_queries.clone()),
            heads as u32,
            group,
            scale,
            tile,
            kind,
        );
        keys_kernel::launch::<R>(
            &client,
            CubeCount::Static(num_keys.div_ceil(tile.rows) as u32, kv_heads as u32, 1),
            tile.dim(),
            array(queries),
            array(keys),
            array(values),
            array(gradient),
            array(sight),
            array(log_sums),
            array(deltas),
            array(g_keys.clone()),
            array(g_values.clone()),
            heads as u32,
            group,
            scale,
            tile,
            kind,
        );
        [g_queries, g_keys, g_values]
    }
}

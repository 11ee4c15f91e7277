//! The gradients of queries, keys and values. Scores are computed again from the stored results of the forward pass.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use surgery_core::burn::tensor::DType;

use super::{Attended, Inputs, SIGHT, Tile, add_weighted, load, look, products, seen_by_tile, sees, store};
use crate::tensor::{Cubes, array, contiguous, dtype, empty, empty_like};

impl<R: CubeRuntime> Inputs<R> {
    /// The gradients of queries, keys and values from that of the output.
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

/// `Σ g · out` of each query and head, `[tokens, heads]`: the normaliser's part of the gradient of a score.
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

/// Computes from a unit's scores, and its products of gradient and values, the weights `p = exp(score - log_sum)` and the
/// gradients of the scores, `p (gradient · value - delta) scale`.
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

/// Writes a unit's part of a tile to shared memory.
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

/// The gradients of a tile of keys and values of a head, from all queries that see some of them. It is for texts without a
/// past: the queries that see a key are the tokens from the key to the end of its segment.
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

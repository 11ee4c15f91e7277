//! Attention of a tile of queries over the tiles of keys that some of the queries see.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use surgery_core::burn::tensor::DType;

use super::{Attended, Inputs, LOWEST, Tile, add_weighted, load, look, products, seen_by_tile, sees, store};
use crate::tensor::{array, dtype, empty, empty_like};

impl<R: CubeRuntime> Inputs<R> {
    /// As [`ModelKernels::attention`](surgery_core::kernels::ModelKernels::attention).
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
        // All units have read the values of the previous tile.
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
        // The factor of an undefined row is never stored.
        totals[i] = 1.0 / totals[i];
    }
    store::<E>(&sums, &totals, out, first, tokens, heads, head, tile);
}

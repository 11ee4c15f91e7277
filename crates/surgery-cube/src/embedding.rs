//! The gradient of the embedding.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::tensor::{Cubes, array, contiguous, dtype, width};

/// The positions of each token.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Occurrences {
    /// The distinct tokens that occur.
    pub tokens: Vec<i32>,
    /// For each token, the start of its positions in `positions`; then the end of the last one's.
    pub starts: Vec<i32>,
    /// Positions, grouped by token.
    pub positions: Vec<i32>,
}

impl Occurrences {
    /// The occurrences in row-major token ids.
    pub fn of(ids: &[u32]) -> Self {
        let mut positions: Vec<usize> = (0..ids.len()).collect();
        positions.sort_by_key(|&position| ids[position]);
        let mut found = Self::default();
        for (place, &position) in positions.iter().enumerate() {
            let token = ids[position] as i32;
            if found.tokens.last() != Some(&token) {
                found.tokens.push(token);
                found.starts.push(place as i32);
            }
            found.positions.push(position as i32);
        }
        found.starts.push(ids.len() as i32);
        found
    }
}

/// Sums the gradients at the positions of each token, in order. A unit processes one vector of a token's row.
#[cube(launch)]
fn embedding_kernel<G: Float, E: Float, N: Size>(
    gradient: &Array<Vector<G, N>>,
    tokens: &Array<i32>,
    starts: &Array<i32>,
    positions: &Array<i32>,
    out: &mut Array<Vector<E, N>>,
    // The size of a row in vectors.
    size: u32,
    #[define(G, E)] _dtypes: [StorageType; 2],
) {
    let size = size as usize;
    if ABSOLUTE_POS < tokens.len() * size {
        let (which, column) = (ABSOLUTE_POS / size, ABSOLUTE_POS % size);
        let mut sum = Vector::<f32, N>::new(0.0);
        for place in u32::cast_from(starts[which])..u32::cast_from(starts[which + 1]) {
            let position = u32::cast_from(positions[place as usize]) as usize;
            sum += Vector::cast_from(gradient[position * size + column]);
        }
        let token = u32::cast_from(tokens[which]) as usize;
        out[token * size + column] = Vector::cast_from(sum);
    }
}

/// Writes the gradient of the embedding rows that occur into `out`, `[vocab, size]`, from the gradient of the
/// embedded tokens, `[.., size]`. burn's own kernel has one unit for each column, which loops over all tokens.
pub(crate) fn embedding_vjp<R: CubeRuntime>(
    gradient: CubeTensor<R>,
    [tokens, starts, positions]: [CubeTensor<R>; 3],
    out: &CubeTensor<R>,
) {
    let gradient = contiguous(gradient);
    let size = out.meta.shape()[1];
    let width = width(&[&gradient, out], size);
    let cubes = Cubes::covering(tokens.meta.num_elements() * (size / width));
    let (client, kinds) = (gradient.client.clone(), [dtype(&gradient), dtype(out)]);
    embedding_kernel::launch::<R>(
        &client,
        cubes.count,
        cubes.dim,
        width,
        array(gradient),
        array(tokens),
        array(starts),
        array(positions),
        array(out.clone()),
        (size / width) as u32,
        kinds,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_grouped_by_token() {
        let found = Occurrences::of(&[5, 0, 5, 2, 0, 5]);
        assert_eq!(found.tokens, [0, 2, 5]);
        assert_eq!(found.starts, [0, 2, 3, 6]);
        assert_eq!(found.positions, [1, 4, 3, 0, 2, 5]);
        assert_eq!(Occurrences::of(&[]).starts, [0]);
    }
}

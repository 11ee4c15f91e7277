//! Heat maps of activations, layer × hidden unit, as images inside the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Maximum number of columns; wider maps are averaged over neighbouring units.
const COLUMNS: usize = 512;

/// Colour scale for magnitudes, from weak to strong.
const SEQUENTIAL: [[f64; 3]; 5] = [
    [13.0, 8.0, 60.0],
    [90.0, 20.0, 125.0],
    [190.0, 55.0, 100.0],
    [245.0, 140.0, 50.0],
    [252.0, 250.0, 190.0],
];
/// Colour scale for differences: decrease, none, increase.
const DIVERGING: [[f64; 3]; 5] = [
    [20.0, 60.0, 150.0],
    [120.0, 170.0, 220.0],
    [244.0, 244.0, 240.0],
    [230.0, 150.0, 110.0],
    [150.0, 25.0, 30.0],
];

/// The values of a map: one row for each layer.
pub type Layers = Vec<Vec<f32>>;

/// The range of the base-10 logarithms of some maps, for a common colour scale. Excludes the lowest 1 % as outliers.
pub fn span(maps: &[&Layers]) -> [f64; 2] {
    let mut logs: Vec<f64> = maps.iter().flat_map(|map| map.iter().flatten()).map(|&v| log(v)).collect();
    logs.sort_by(f64::total_cmp);
    match logs.last() {
        Some(&most) => [logs[logs.len() / 100].min(most - 1e-3), most],
        None => [0.0, 1.0],
    }
}

/// A map of magnitudes on a logarithmic scale, as a `data:` URI of a PNG.
pub fn magnitudes(map: &Layers, [low, high]: [f64; 2]) -> String {
    picture(map, |value| colour(&SEQUENTIAL, (log(value) - low) / (high - low)))
}

/// A map of the ratios `after` / `before`; the colour scale spans 1/2 to 2.
pub fn differences(before: &Layers, after: &Layers) -> String {
    let both = before.iter().zip(after);
    let ratios: Layers = both
        .map(|(before, after)| {
            before.iter().zip(after).map(|(&b, &a)| ((log(a) - log(b)) / 2f64.log10()) as f32).collect()
        })
        .collect();
    picture(&ratios, |value| colour(&DIVERGING, (f64::from(value) + 1.0) / 2.0))
}

fn log(value: f32) -> f64 {
    f64::from(value).max(1e-8).log10()
}

/// The colour at a position from 0 to 1 on a scale.
fn colour(scale: &[[f64; 3]], place: f64) -> [u8; 3] {
    let place = place.clamp(0.0, 1.0) * (scale.len() - 1) as f64;
    let below = (place as usize).min(scale.len() - 2);
    let part = place - below as f64;
    std::array::from_fn(|c| (scale[below][c] * (1.0 - part) + scale[below + 1][c] * part).round() as u8)
}

fn picture(map: &Layers, paint: impl Fn(f32) -> [u8; 3]) -> String {
    let rows: Vec<Vec<f32>> = map.iter().map(|row| pooled(row)).collect();
    let (width, height) = (rows.first().map_or(0, Vec::len), rows.len());
    let pixels: Vec<u8> = rows.iter().flatten().flat_map(|&value| paint(value)).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
    match written {
        Ok(()) => format!("data:image/png;base64,{}", STANDARD.encode(file)),
        // A map without layers or units has no image.
        Err(_) => String::new(),
    }
}

/// Averages neighbours so that at most [`COLUMNS`] values remain.
fn pooled(row: &[f32]) -> Vec<f32> {
    let count = row.len().min(COLUMNS);
    let mean = |index: usize| {
        let part = &row[index * row.len() / count..(index + 1) * row.len() / count];
        part.iter().sum::<f32>() / part.len() as f32
    };
    (0..count).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_clamped_and_neighbours_averaged() {
        assert_eq!(colour(&DIVERGING, 0.5), [244, 244, 240]);
        assert_eq!(colour(&SEQUENTIAL, 7.0), [252, 250, 190]);
        assert_eq!(pooled(&[1.0; 1025]).len(), COLUMNS);
        assert!((pooled(&(0..1024).map(|v| v as f32).collect::<Vec<_>>())[1] - 2.5).abs() < 1e-6);
        assert!(magnitudes(&vec![vec![0.5, 0.0]], [-2.0, 0.0]).starts_with("data:image/png;base64,"));
        assert_eq!(magnitudes(&Vec::new(), [0.0, 1.0]), "");
        let [low, high] = span(&[&vec![vec![1.0, 10.0]]]);
        assert!((low, high) == (0.0, 1.0));
    }
}

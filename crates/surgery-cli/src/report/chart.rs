//! Line charts over the steps as SVG, with colours from the page.

use std::fmt::Write;

/// Margins and size of the plot in SVG units.
const LEFT: f64 = 46.0;
const TOP: f64 = 10.0;
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 180.0;
const BOTTOM: f64 = 26.0;
const RIGHT: f64 = 10.0;

/// One curve.
pub struct Curve {
    /// Its label.
    pub name: String,
    /// Its colour on the page: 0 for `var(--c0)` and so on.
    pub colour: usize,
    /// Points: step and value.
    pub points: Vec<(f64, f64)>,
}

/// A chart of curves with common axes. Empty if no curve has two points.
pub fn svg(title: &str, curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| &curve.points).filter(|(_, y)| y.is_finite());
    if !curves.iter().any(|curve| curve.points.len() > 1) {
        return String::new();
    }
    let end = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let high = all().map(|(_, y)| *y).fold(f64::MIN, f64::max);
    let low = all().map(|(_, y)| *y).fold(f64::MAX, f64::min);
    // The axis starts at 0, unless the curves stay far above it.
    let floor = if low < 0.6 * high { low.min(0.0) } else { low };
    let ticks = ticks(floor, high);
    let (floor, high) = (ticks[0], ticks[ticks.len() - 1]);
    let across = |x: f64| LEFT + x / end * WIDTH;
    let up = |y: f64| TOP + HEIGHT - (y - floor) / (high - floor) * HEIGHT;

    let (width, height) = (LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM);
    let mut svg = format!(
        r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg">"#
    );
    for tick in ticks {
        let y = up(tick);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT + WIDTH,
            LEFT - 6.0,
            y + 4.0,
            label(tick)
        );
    }
    for step in self::ticks(0.0, end).into_iter().filter(|step| *step <= end) {
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            across(step),
            TOP + HEIGHT + 18.0,
            label(step)
        );
    }
    for Curve { name, colour, points } in curves {
        let finite = points.iter().filter(|(_, y)| y.is_finite());
        let path: Vec<String> = finite.map(|&(x, y)| format!("{:.1},{:.1}", across(x), up(y))).collect();
        let _ = write!(
            svg,
            r#"<polyline class="curve" style="stroke:var(--c{colour})" points="{}"><title>{name}</title></polyline>"#,
            path.join(" ")
        );
    }
    svg.push_str("</svg>");
    svg
}

/// About five round numbers that span `low` to `high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = if high > low { high - low } else { high.abs().max(1.0) };
    let raw = span / 4.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|by| by * power).into_iter().find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(raw);
    let first = (low / step + 1e-9).floor();
    let last = ((low + span) / step - 1e-9).ceil();
    (0..=(last - first) as usize).map(|index| (first + index as f64) * step).collect()
}

/// A tick's label without trailing zeros.
fn label(value: f64) -> String {
    if value != 0.0 && (value.abs() >= 1e5 || value.abs() < 1e-3) {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_span_the_range() {
        assert_eq!(ticks(0.0, 100.0), [0.0, 25.0, 50.0, 75.0, 100.0]);
        let found = ticks(0.3, 2.9);
        assert!(found[0] <= 0.3 && found[found.len() - 1] >= 2.9 && found.len() <= 7, "{found:?}");
        let flat = ticks(5.0, 5.0);
        assert!(flat[0] <= 5.0 && flat[flat.len() - 1] > 5.0, "{flat:?}");
        assert_eq!([label(0.25), label(100.0), label(2e6), label(0.0)], ["0.25", "100", "2e6", "0"]);
    }

    #[test]
    fn a_curve_needs_two_points_and_skips_values_that_are_not_finite() {
        let curve = |points: &[(f64, f64)]| {
            svg("t", &[Curve { name: "a".into(), colour: 0, points: points.to_vec() }])
        };
        assert_eq!(curve(&[(1.0, 1.0)]), "");
        let drawn = curve(&[(1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0)]);
        assert_eq!(drawn.matches("polyline").count(), 2);
        assert!(!drawn.contains("NaN"));
    }
}

//! Line and area charts as plain SVG: no script, so that a report is one file that opens anywhere, for ever.

use std::fmt::Write;

/// One curve; `values[i]` belongs to `Chart::seconds[i]`, `NaN` leaves a gap.
pub struct Series<'a> {
    pub name: &'a str,
    pub color: &'a str,
    pub values: Vec<f64>,
}

/// A chart over time.
pub struct Chart<'a> {
    pub title: &'a str,
    /// Unit of the vertical axis.
    pub unit: &'a str,
    pub seconds: &'a [f64],
    pub series: Vec<Series<'a>>,
    /// Areas on top of one another instead of lines.
    pub stacked: bool,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 30.0;

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least `value`.
fn nice_ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= value * 0.999_999);
    factor.unwrap_or(10.0) * power
}

fn label(value: f64) -> String {
    let text = if value >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if value >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        text
    }
}

impl Chart<'_> {
    /// The chart as one `<svg>` element.
    pub fn svg(&self) -> String {
        let end = self.seconds.last().copied().unwrap_or(1.0).max(1.0);
        let top = nice_ceiling(self.highest());
        let x = |second: f64| LEFT + (WIDTH - LEFT - RIGHT) * second / end;
        let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><text x=\"{LEFT}\" y=\"18\" class=\"title\">{0} <tspan class=\"unit\">({1})</tspan></text>",
            escape(self.title),
            escape(self.unit)
        );
        self.axes(&mut svg, end, top, &x, &y);
        let mut below = vec![0.0; self.seconds.len()];
        for series in &self.series {
            if self.stacked {
                let above: Vec<f64> = below
                    .iter()
                    .zip(&series.values)
                    .map(|(low, value)| low + if value.is_nan() { 0.0 } else { *value })
                    .collect();
                let up = self
                    .seconds
                    .iter()
                    .zip(&above)
                    .map(|(second, value)| (x(*second), y(*value)));
                let down = self
                    .seconds
                    .iter()
                    .zip(&below)
                    .rev()
                    .map(|(second, value)| (x(*second), y(*value)));
                let points: Vec<String> = up
                    .chain(down)
                    .map(|(x, y)| format!("{x:.1},{y:.1}"))
                    .collect();
                let _ = write!(
                    svg,
                    "<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.75\"/>",
                    points.join(" "),
                    series.color
                );
                below = above;
            } else {
                let _ = write!(
                    svg,
                    "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"/>",
                    path(self.seconds, &series.values, &x, &y),
                    series.color
                );
            }
        }
        self.legend(&mut svg);
        svg.push_str("</svg>");
        svg
    }

    fn highest(&self) -> f64 {
        let finite = |values: &[f64]| {
            values
                .iter()
                .copied()
                .filter(|value| value.is_finite())
                .fold(0.0, f64::max)
        };
        if !self.stacked {
            return self
                .series
                .iter()
                .map(|series| finite(&series.values))
                .fold(0.0, f64::max);
        }
        let sums: Vec<f64> = (0..self.seconds.len())
            .map(|index| {
                self.series
                    .iter()
                    .filter_map(|series| series.values.get(index))
                    .filter(|value| value.is_finite())
                    .sum()
            })
            .collect();
        finite(&sums)
    }

    fn axes(
        &self,
        svg: &mut String,
        end: f64,
        top: f64,
        x: &dyn Fn(f64) -> f64,
        y: &dyn Fn(f64) -> f64,
    ) {
        for part in 0..=4 {
            let value = top * f64::from(part) / 4.0;
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{2:.1}\" y2=\"{2:.1}\" class=\"grid\"/><text x=\"{3}\" y=\"{4:.1}\" class=\"tick\" text-anchor=\"end\">{1}</text>",
                WIDTH - RIGHT,
                label(value),
                y(value),
                LEFT - 6.0,
                y(value) + 4.0
            );
        }
        let step = nice_ceiling(end / 8.0);
        let mut second = 0.0;
        while second <= end {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" class=\"tick\" text-anchor=\"middle\">{} s</text>",
                x(second),
                HEIGHT - 10.0,
                label(second)
            );
            second += step;
        }
    }

    fn legend(&self, svg: &mut String) {
        let mut right = WIDTH - RIGHT;
        for series in self.series.iter().rev() {
            right -= 7.0 * series.name.chars().count() as f64;
            let _ = write!(
                svg,
                "<text x=\"{right:.0}\" y=\"18\" class=\"tick\">{}</text><rect x=\"{:.0}\" y=\"9\" width=\"10\" height=\"10\" fill=\"{}\"/>",
                escape(series.name),
                right - 14.0,
                series.color
            );
            right -= 26.0;
        }
    }
}

fn path(seconds: &[f64], values: &[f64], x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (second, value) in seconds.iter().zip(values) {
        if value.is_finite() {
            let command = if pen_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1} ", x(*second), y(*value));
        }
        pen_down = value.is_finite();
    }
    path
}

/// Text inside HTML or SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, ceiling) in [
            (0.0, 1.0),
            (3.0, 5.0),
            (17.0, 20.0),
            (21.0, 25.0),
            (1000.0, 1000.0),
            (0.34, 0.5),
        ] {
            assert!(
                (nice_ceiling(value) - ceiling).abs() < 1e-9,
                "{value}: {}",
                nice_ceiling(value)
            );
        }
    }

    #[test]
    fn a_gap_lifts_the_pen_and_text_is_escaped() {
        let chart = Chart {
            title: "a < b",
            unit: "1",
            seconds: &[0.0, 1.0, 2.0, 3.0],
            series: vec![Series {
                name: "n",
                color: "red",
                values: vec![1.0, f64::NAN, 2.0, 3.0],
            }],
            stacked: false,
        };
        let svg = chart.svg();
        assert_eq!(svg.matches('M').count(), 2, "{svg}");
        assert!(svg.contains("a &lt; b"));
    }

    #[test]
    fn stacked_areas_reach_the_sum() {
        let chart = Chart {
            title: "t",
            unit: "1",
            seconds: &[0.0, 1.0],
            series: vec![
                Series {
                    name: "owned",
                    color: "green",
                    values: vec![2.0, 4.0],
                },
                Series {
                    name: "serverless",
                    color: "orange",
                    values: vec![0.0, 6.0],
                },
            ],
            stacked: true,
        };
        assert!((chart.highest() - 10.0).abs() < 1e-9);
        assert_eq!(chart.svg().matches("<polygon").count(), 2);
    }
}

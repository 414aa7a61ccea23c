//! Diagrams as SVG, to be part of a page.

use std::fmt::{self, Write as _};

use crate::bench::units::{Span, ratio};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// A diagram of times, on a logarithmic scale.
pub(super) struct Chart {
    /// The meaning of the x-axis.
    pub(super) x_label: &'static str,
    /// The range of the x-axis.
    pub(super) x_range: (f64, f64),
    pub(super) x_ticks: Vec<(f64, String)>,
    pub(super) lines: Vec<Line>,
}

/// A line of a diagram.
pub(super) struct Line {
    /// The name, which is also the class for its colour.
    pub(super) name: &'static str,
    /// The x-value, and a time in nanoseconds.
    pub(super) points: Vec<(f64, u64)>,
}

/// The y-axis: times on a logarithmic scale.
struct TimeAxis {
    low: f64,
    high: f64,
}

impl TimeAxis {
    /// Covers all values with steps of 1, 2 and 5.
    fn covering(values: impl Iterator<Item = u64> + Clone) -> Self {
        let low = values.clone().min().unwrap_or(1).max(1);
        let high = values.max().unwrap_or(1).max(1);
        let below = steps().take_while(|&step| step <= low).last().unwrap_or(1);
        let above = steps().find(|&step| step >= high && step > below).unwrap_or(u64::MAX);
        Self { low: ratio(below, 1).log10(), high: ratio(above, 1).log10() }
    }

    fn position(&self, nanos: u64) -> f64 {
        let share = (ratio(nanos.max(1), 1).log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    /// The times at which there is a line, fewer of them if the range is large.
    fn ticks(&self) -> Vec<u64> {
        let inside = |step: &u64| (self.low..=self.high).contains(&ratio(*step, 1).log10());
        let all: Vec<_> = steps().filter(inside).collect();
        if all.len() <= 8 {
            return all;
        }
        all.into_iter().filter(|step| step.to_string().starts_with('1')).collect()
    }
}

/// The numbers 1, 2, 5, 10, 20, 50 and so on.
fn steps() -> impl Iterator<Item = u64> {
    (0..19).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)))
}

impl Chart {
    fn x(&self, value: f64) -> f64 {
        let (low, high) = self.x_range;
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axis =
            TimeAxis::covering(self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.1)));
        writeln!(f, r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, self.x_label)?;
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for time in axis.ticks() {
            let (y, text) = (axis.position(time), label(time));
            writeln!(f, r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#)?;
            writeln!(f, r#"<text class="y" x="{:.1}" y="{:.1}">{text}</text>"#, LEFT - 8.0, y + 4.0)?;
        }
        for (value, text) in &self.x_ticks {
            let x = self.x(*value);
            writeln!(f, r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/>"#)?;
            writeln!(f, r#"<text class="x" x="{x:.1}" y="{:.1}">{text}</text>"#, bottom + 18.0)?;
        }
        for line in &self.lines {
            let mut path = String::new();
            for (at, &(x, nanos)) in line.points.iter().enumerate() {
                let command = if at == 0 { 'M' } else { 'L' };
                write!(path, "{command}{:.1} {:.1}", self.x(x), axis.position(nanos))?;
            }
            writeln!(f, r#"<path class="{}" d="{path}"/>"#, line.name)?;
        }
        f.write_str("</svg>\n")
    }
}

/// A step of the axis, without digits after the point.
fn label(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => (nanos, "ns"),
        1_000..1_000_000 => (nanos / 1_000, "µs"),
        1_000_000..1_000_000_000 => (nanos / 1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => (nanos / 1_000_000_000, "s"),
        _ => return Span(nanos).to_string(),
    };
    format!("{value}{unit}")
}

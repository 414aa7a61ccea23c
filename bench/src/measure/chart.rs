//! The chart of the README: the cost of a message, relative to the floor.

use std::fmt::Write;

use super::libraries::{self, FLOOR, LIMIT};
use super::matrix::Results;

/// The cases in the chart, with their labels.
const CASES: [(&str, &str); 4] = [
    ("echo-16B-x1", "16 bytes, one message in flight"),
    ("echo-1KiB-x16", "1 KiB, 16 messages in flight"),
    ("echo-16KiB-x16", "16 KiB, 16 messages in flight"),
    ("text-1KiB-x16", "1 KiB of multi-byte text, 16 messages in flight"),
];

const BAR: usize = 14;
const LEFT: usize = 190;
const WIDTH: usize = 760;
/// The end of the axis. Higher costs are drawn up to here, with their number.
const LARGEST: f64 = 32.0;

const STYLE: &str = "text{font:12px sans-serif;fill:#24292f}.title{font-weight:bold}.ours{fill:#0a7f5a}\
                     .plain{fill:#8c959f}.batch{fill:#c8ced4}line{stroke:#d0d7de}\
                     @media(prefers-color-scheme:dark){text{fill:#e6edf3}.ours{fill:#2fbf8f}\
                     .plain{fill:#7d8590}\
                     .batch{fill:#484f58}line{stroke:#30363d}}";

/// Returns the chart as an SVG, or `None` if not all of its cases were run.
pub fn draw(results: &[Results]) -> Option<String> {
    let mut body = String::new();
    let mut top = 20;
    for (name, title) in CASES {
        let results = results.iter().find(|results| results.case.name == name)?;
        let floor = results.floor()?.value(results.cost())?;
        let mut rows: Vec<(&str, f64)> = results
            .rows
            .iter()
            .filter(|row| ![FLOOR, LIMIT].contains(&row.library.as_str()))
            .filter_map(|row| Some((row.library.as_str(), row.value(results.cost())? / floor)))
            .collect();
        rows.sort_by(|(_, left), (_, right)| left.total_cmp(right));
        let _ = writeln!(body, r#"<text class="title" x="0" y="{top}">{title}</text>"#);
        top += 8;
        for (library, ratio) in rows {
            let class = match library {
                libraries::BOWLINE | libraries::HUB => "ours",
                _ if libraries::is_batched(library) => "batch",
                _ => "plain",
            };
            let (length, bottom) = (length(ratio), top + BAR - 3);
            let (left, right, height) = (LEFT - 8, LEFT + length + 6, BAR - 3);
            let _ = write!(body, r#"<text x="{left}" y="{bottom}" text-anchor="end">{library}</text>"#);
            let _ = write!(
                body,
                r#"<rect class="{class}" x="{LEFT}" y="{top}" width="{length}" height="{height}"/>"#
            );
            let _ = writeln!(body, r#"<text x="{right}" y="{bottom}">{ratio:.2}</text>"#);
            top += BAR;
        }
        top += 26;
    }
    let note = "Server CPU time per message, as a ratio to an echo without a library (logarithmic). \
                Light: replies gathered by hand.";
    let _ = writeln!(body, r#"<line x1="{LEFT}" y1="24" x2="{LEFT}" y2="{}"/>"#, top - 26);
    let _ = writeln!(body, r#"<text x="0" y="{top}">{note}</text>"#);
    let height = top + 12;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{note}</title>\n<style>{STYLE}</style>\n{body}</svg>\n"
    ))
}

/// Returns the length of a bar; the floor's is the shortest.
fn length(ratio: f64) -> usize {
    let share = ratio.clamp(1.0, LARGEST).ln() / LARGEST.ln();
    (share * (WIDTH - LEFT - 60) as f64).round().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_ratio_up_to_the_end_of_the_axis() {
        assert_eq!(length(0.9), 1);
        assert!(length(1.1) < length(2.0) && length(2.0) < length(20.0));
        assert_eq!(length(LARGEST), length(1000.0));
    }
}

//! Statistics of samples.

/// Returns the median, or NaN if there are no values.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Returns the interquartile range.
pub fn interquartile_range(values: &[f64]) -> f64 {
    quantile(values, 0.75) - quantile(values, 0.25)
}

/// Returns a quantile, by linear interpolation between two values.
pub fn quantile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = quantile * last as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

/// One library beside another: the ratios of their samples, each of the same round.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    pub ratio: f64,
    /// The interquartile range of the ratios.
    pub noise: f64,
    pub rounds: usize,
}

/// The fewest rounds that make a verdict.
pub const ROUNDS_FOR_VERDICT: usize = 9;

impl Comparison {
    /// Compares pairs of costs: the first of each pair with the second.
    pub fn new(pairs: &[(f64, f64)]) -> Self {
        let ratios: Vec<_> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        Self { ratio: median(&ratios), noise: interquartile_range(&ratios), rounds: ratios.len() }
    }

    /// Returns the verdict, or `None` after too few rounds.
    pub fn verdict(&self) -> Option<&'static str> {
        if self.rounds < ROUNDS_FOR_VERDICT {
            return None;
        }
        Some(match self.ratio - 1.0 {
            distance if distance.abs() <= self.noise => "tie",
            distance if distance < 0.0 => "faster",
            _ => "slower",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(interquartile_range(&[1.0, 2.0, 3.0, 4.0, 5.0]), 2.0);
    }

    #[test]
    fn a_difference_within_the_noise_is_a_tie() {
        let noisy: Vec<_> = (0..9).map(|round| (0.9 + 0.05 * f64::from(round), 1.0)).collect();
        assert_eq!(Comparison::new(&noisy).verdict(), Some("tie"));
        let calm: Vec<_> = (0..9).map(|round| (0.9 + 0.001 * f64::from(round), 1.0)).collect();
        assert_eq!(Comparison::new(&calm).verdict(), Some("faster"));
        assert_eq!(Comparison::new(&calm[..8]).verdict(), None);
    }
}

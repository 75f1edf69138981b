//! The table that is printed.

/// What was aimed at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Nothing: the figure is there to be looked at.
    None,
    /// At most this much of the baseline.
    RatioAtMost(f64),
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) value: f64,
    /// What it is compared with, and that one's figure.
    pub(crate) baseline: Option<(String, f64)>,
    pub(crate) goal: Goal,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|(_, baseline)| self.value / baseline)
    }

    fn is_missed(&self) -> bool {
        match self.goal {
            Goal::None => false,
            Goal::RatioAtMost(most) => self.ratio().is_none_or(|ratio| ratio > most),
            Goal::AtMost(most) => self.value > most,
            Goal::AtLeast(least) => self.value < least,
        }
    }

    fn print(&self) {
        let goal = match self.goal {
            Goal::None => "-".into(),
            Goal::RatioAtMost(most) => format!("ratio <= {most}"),
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::AtLeast(least) => format!(">= {least}"),
        };
        let (baseline, against) = match &self.baseline {
            Some((against, baseline)) => (number(*baseline), against.as_str()),
            None => ("-".into(), ""),
        };
        let ratio = self.ratio().map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let mark = if self.is_missed() { "  MISSED" } else { "" };
        let (work, value) = (&self.work, number(self.value));
        println!("{work:<48}{value:>11}{baseline:>11}{ratio:>7}  {goal:<14}{against}{mark}");
    }
}

/// Prints one part of the table, and says how many goals are missed.
pub(crate) fn print(title: &str, rows: &[Row]) -> usize {
    println!("{title:<48}{:>11}{:>11}{:>7}  {:<14}baseline is", "entresol", "baseline", "ratio", "goal");
    rows.iter().for_each(Row::print);
    println!();
    rows.iter().filter(|row| row.is_missed()).count()
}

/// Three digits, or all that are before the point.
fn number(value: f64) -> String {
    let places = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::{Goal, Row, number};

    fn row(value: f64, goal: Goal) -> Row {
        Row { work: String::new(), value, baseline: Some((String::new(), 2.0)), goal }
    }

    #[test]
    fn figure_at_its_goal_reaches_it() {
        for goal in [Goal::RatioAtMost(1.0), Goal::AtMost(2.0), Goal::AtLeast(2.0), Goal::None] {
            assert!(!row(2.0, goal).is_missed(), "{goal:?}");
        }
    }

    #[test]
    fn figure_beyond_its_goal_misses_it() {
        assert!(row(2.1, Goal::RatioAtMost(1.0)).is_missed());
        assert!(row(2.1, Goal::AtMost(2.0)).is_missed());
        assert!(row(1.9, Goal::AtLeast(2.0)).is_missed());
    }

    #[test]
    fn numbers_have_three_digits_or_no_point() {
        assert_eq!([0.5, 12.34, 99.99, 123.4, 5678.0].map(number), ["0.50", "12.3", "100.0", "123", "5678"]);
    }
}

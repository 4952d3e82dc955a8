//! Draws which agent ran what, when.
//!
//! Pure: spans in, text out.

use std::collections::BTreeMap;
use std::time::Duration;

/// One task's stay on an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Name of the agent.
    pub agent: String,
    /// When it began to run, since the start of the job.
    pub began: Duration,
    /// When it ended.
    pub ended: Duration,
    /// Whether its result counted.
    pub finished: bool,
}

/// Marks for 1 to 9 tasks at once; more print as `#`.
const MARKS: &[u8] = b" 123456789";

/// One row an agent, `width` columns from the start of the job to its end: how many tasks it ran at each time, `x`
/// where one was lost.
pub(crate) fn draw(spans: &[Span], total: Duration, width: usize) -> String {
    let mut rows: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut running: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let column = |at: Duration| {
        let share = at.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
        // A share of at most 1 of a width that fits a terminal.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a column number"
        )]
        let column = (share.clamp(0.0, 1.0) * width as f64) as usize;
        column.min(width.saturating_sub(1))
    };
    for span in spans {
        let counts = running.entry(&span.agent).or_insert_with(|| vec![0; width]);
        for count in &mut counts[column(span.began)..=column(span.ended)] {
            *count += 1;
        }
    }
    for (agent, counts) in &running {
        let row = counts
            .iter()
            .map(|count| *MARKS.get(*count).unwrap_or(&b'#'))
            .collect();
        rows.insert(agent, row);
    }
    for span in spans.iter().filter(|span| !span.finished) {
        if let Some(row) = rows.get_mut(span.agent.as_str()) {
            row[column(span.ended)] = b'x';
        }
    }
    let mut text = format!(
        "tasks at once by agent, {:.1} s from left to right (x: lost and run again)\n",
        total.as_secs_f64()
    );
    for (agent, row) in rows {
        text.push_str(&format!("{agent:<12}|{}|\n", String::from_utf8_lossy(&row)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_overlap_and_losses() {
        let span = |agent: &str, began, ended, finished| Span {
            agent: agent.into(),
            began: Duration::from_secs(began),
            ended: Duration::from_secs(ended),
            finished,
        };
        let spans = [
            span("a", 0, 5, true),
            span("a", 2, 9, true),
            span("b", 0, 4, false),
        ];
        let drawn = draw(&spans, Duration::from_secs(10), 10);
        let rows: Vec<&str> = drawn.lines().skip(1).collect();
        assert_eq!(
            rows,
            ["a           |1122221111|", "b           |1111x     |"]
        );
    }
}

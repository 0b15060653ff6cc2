//! The report as text.

use crate::{
    figure::{Compared, Figure, Target},
    results::Results,
};

const HEADINGS: [&str; 9] = [
    "scenario",
    "figure",
    "ours",
    "yardstick",
    "direct",
    "compared",
    "target",
    "met",
    "before",
];

/// The figures in columns, with those of an earlier run beside them.
pub(crate) fn render(figures: &[Figure], before: Option<&Results>) -> String {
    let rows: Vec<[String; 9]> = figures.iter().map(|it| cells(it, before)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let cells = cells.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&HEADINGS);
    for row in &rows {
        text.push_str(&line(&row.each_ref().map(String::as_str)));
    }
    text
}

/// What the row of a figure says.
pub(crate) fn cells(figure: &Figure, before: Option<&Results>) -> [String; 9] {
    let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
    let compared = figure.compared.as_ref();
    let met = match figure.is_met() {
        None => "",
        Some(true) => "yes",
        Some(false) => "NO",
    };
    [
        figure.scenario.clone(),
        figure.what.clone(),
        format!("{} {}", number(figure.ours), figure.unit)
            .trim()
            .to_owned(),
        optional(figure.yardstick),
        optional(figure.direct),
        compared.map(comparison).unwrap_or_default(),
        compared
            .and_then(|it| it.target)
            .map(target)
            .unwrap_or_default(),
        met.to_owned(),
        before
            .and_then(|before| before.same(figure))
            .map(earlier)
            .unwrap_or_default(),
    ]
}

fn comparison(compared: &Compared) -> String {
    let range = compared
        .range
        .map(|(least, most)| format!(" [{}-{}]", number(least), number(most)));
    format!(
        "{} {}{}",
        number(compared.value),
        compared.to,
        range.unwrap_or_default()
    )
}

fn target(target: Target) -> String {
    match target {
        Target::AtLeast(least) => format!(">= {}", number(least)),
        Target::AtMost(most) => format!("<= {}", number(most)),
    }
}

fn earlier(figure: &Figure) -> String {
    match &figure.compared {
        Some(compared) if compared.range.is_some() => {
            format!("{} ({})", number(figure.ours), number(compared.value))
        }
        _ => number(figure.ours),
    }
}

/// Three digits that count, as far as there are so many.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Ratio;

    #[test]
    fn a_row_says_whether_its_target_was_met() {
        let ratio = Ratio {
            median: 0.5,
            least: 0.4,
            most: 0.7,
        };
        let figure = Figure::new("burst", "SSE streams", "/s", 5123.4)
            .beside(9000.0)
            .ratio("x pass-through", Some(ratio), Some(Target::AtLeast(0.6)));
        let row = cells(&figure, None);
        assert_eq!(
            row[2..8],
            [
                "5123 /s",
                "9000",
                "",
                "0.50 x pass-through [0.40-0.70]",
                ">= 0.60",
                "NO"
            ]
        );
        let text = render(&[figure], None);
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn numbers_are_as_long_as_they_mean() {
        assert_eq!(
            [1234.5, 12.34, 1.234, 0.0123, 0.0].map(number),
            ["1234", "12.3", "1.23", "0.012", "0"]
        );
    }
}

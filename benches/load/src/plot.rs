//! The report as a page, with its plots in it.

use plotters::prelude::{
    BLACK, Color as _, DrawingAreaErrorKind, IntoDrawingArea as _, IntoFont as _, PathElement,
    RGBColor, Rectangle, SVGBackend, Text, WHITE,
};

use crate::{
    error::LoadError,
    figure::{Figure, Target},
    results::Results,
    table,
};

const OURS: RGBColor = RGBColor(38, 96, 164);
const YARDSTICK: RGBColor = RGBColor(160, 160, 160);
const DIRECT: RGBColor = RGBColor(205, 190, 150);
const MISSED: RGBColor = RGBColor(190, 60, 50);

const WIDTH: i32 = 960;
const LEFT: i32 = 330;
const RIGHT: i32 = 120;
const BAR: i32 = 14;
const FONT: &str = "sans-serif";

/// A bar with its name.
struct Bar {
    label: String,
    value: f64,
    color: RGBColor,
    /// A bound that is drawn across it.
    mark: Option<f64>,
}

/// The page of a run.
pub(crate) fn page(results: &Results, before: Option<&Results>) -> Result<String, LoadError> {
    let figures = &results.figures;
    let plots = [
        (
            "Ratios to the pass-through, and to SSE (the line: the target)",
            ratios(figures),
        ),
        ("First token, ms", beside(figures, "first token")),
        ("CPU per 1,000, s", beside(figures, "CPU per 1,000")),
    ];
    let mut body = String::new();
    for (title, bars) in plots {
        if !bars.is_empty() {
            body.push_str(&format!("<h2>{}</h2>\n{}\n", escape(title), draw(&bars)?));
        }
    }
    let settings: Vec<String> = results
        .settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Load test</title>\n\
         <style>body{{font:14px sans-serif;max-width:1200px;margin:2em auto;padding:0 1em}}\
         table{{border-collapse:collapse}}td,th{{text-align:left;padding:.2em .6em;border-bottom:1px solid #ddd}}\
         .no{{color:#be3c32;font-weight:bold}}svg{{max-width:100%;height:auto}}</style>\n\
         <h1>Load test, {} ({})</h1>\n<p>{}</p>\n<p>Server with {}</p>\n\
         <p>Blue: ours (red: target missed); grey: pass-through, or the bare echo; sand: the upstream itself.</p>\n{body}\n{}\n</html>\n",
        escape(&results.at),
        escape(&results.scale),
        escape(&results.machine.lines()),
        escape(&settings.join(" ")),
        rows(figures, before),
    ))
}

fn rows(figures: &[Figure], before: Option<&Results>) -> String {
    let mut text = String::from(
        "<h2>Figures</h2>\n<table><tr><th>scenario<th>figure<th>ours<th>yardstick<th>direct<th>compared<th>target<th>met<th>before</tr>\n",
    );
    for figure in figures {
        let class = if figure.is_met() == Some(false) {
            " class=\"no\""
        } else {
            ""
        };
        let cells = table::cells(figure, before).map(|cell| format!("<td>{}", escape(&cell)));
        text.push_str(&format!("<tr{class}>{}</tr>\n", cells.concat()));
    }
    text + "</table>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn color(figure: &Figure) -> RGBColor {
    match figure.is_met() {
        Some(false) => MISSED,
        Some(true) | None => OURS,
    }
}

fn ratios(figures: &[Figure]) -> Vec<Bar> {
    let bar = |figure: &Figure| {
        let compared = figure
            .compared
            .as_ref()
            .filter(|it| it.to.starts_with("x "))?;
        Some(Bar {
            label: format!("{}: {} ({})", figure.scenario, figure.what, compared.to),
            value: compared.value,
            color: color(figure),
            mark: compared.target.map(|target| match target {
                Target::AtLeast(bound) | Target::AtMost(bound) => bound,
            }),
        })
    };
    figures.iter().filter_map(bar).collect()
}

/// Ours and what stands beside it, of figures whose name has a part.
fn beside(figures: &[Figure], part: &str) -> Vec<Bar> {
    let bars = |figure: &Figure| {
        let all = [
            ("", Some(figure.ours), color(figure)),
            (", yardstick", figure.yardstick, YARDSTICK),
            (", direct", figure.direct, DIRECT),
        ];
        let label = format!("{}: {}", figure.scenario, figure.what);
        all.map(|(which, value, color)| {
            Some(Bar {
                label: format!("{label}{which}"),
                value: value?,
                color,
                mark: None,
            })
        })
    };
    let named = figures.iter().filter(|figure| figure.what.contains(part));
    named.flat_map(bars).flatten().collect()
}

/// Horizontal bars, drawn by hand: a chart's axes would say less than the names do.
fn draw(bars: &[Bar]) -> Result<String, LoadError> {
    let height = BAR * 2 * i32::try_from(bars.len()).unwrap_or(i32::MAX / BAR / 2 - 1) + BAR;
    let most = bars
        .iter()
        .map(|bar| bar.value.max(bar.mark.unwrap_or(0.0)));
    let most = most.fold(f64::MIN_POSITIVE, f64::max);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a place within the picture"
    )]
    let place =
        |value: f64| LEFT + (value.max(0.0) / most * f64::from(WIDTH - LEFT - RIGHT)) as i32;
    let mut svg = String::new();
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let font = || (FONT, 11).into_font().color(&BLACK);
        let mut top = BAR;
        for bar in bars {
            let text = Text::new(bar.label.clone(), (4, top), font());
            area.draw(&text).map_err(failed)?;
            let end = place(bar.value);
            let shape = Rectangle::new([(LEFT, top), (end, top + BAR)], bar.color.filled());
            area.draw(&shape).map_err(failed)?;
            let value = Text::new(table::number(bar.value), (end + 6, top), font());
            area.draw(&value).map_err(failed)?;
            if let Some(mark) = bar.mark {
                let (at, ends) = (place(mark), [top - 3, top + BAR + 3]);
                let line = PathElement::new(ends.map(|y| (at, y)), BLACK.stroke_width(2));
                area.draw(&line).map_err(failed)?;
            }
            top += BAR * 2;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> LoadError {
    LoadError::Unusable(format!("a plot: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_with_their_names() {
        let figure = Figure::new("burst", "first token <p50>", "ms", 2.0).beside(1.0);
        let bars = beside(&[figure], "first token");
        assert_eq!(bars.len(), 2);
        let svg = draw(&bars).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("burst: first token &lt;p50&gt;"));
    }
}

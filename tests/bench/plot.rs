//! The benchmark as a picture: each setup's throughput and CPU time relative to no filter.

use super::report::{Line, Spread};
use super::setups::Filter;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 420);
/// The width of the left panel, which has the setups' names.
const LEFT: u32 = 610;
const NAMES: u32 = 290;
/// The reference, and a setup whose CPU time would hide the differences of the others.
const OMITTED: [&str; 2] = [Filter::Nothing.name(), Filter::OursAlone.name()];
const TITLE: &str = "relative to no filter";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes an SVG of the setups' results with the smaller tokens.
pub(crate) fn write(file: &Path, lines: &[Line<'_>]) {
    let bytes = lines[0].token_bytes;
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| line.token_bytes == bytes && !OMITTED.contains(&line.setup))
        .collect();
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).expect("a file");
    let (left, right) = area.split_horizontally(LEFT);
    panel(
        &left,
        &format!("Requests per second, {TITLE}"),
        &lines,
        |line| line.of_no_filter,
        NAMES,
    );
    panel(
        &right,
        &format!("CPU a request, {TITLE}"),
        &lines,
        |line| line.cpu_of_no_filter,
        0,
    );
    area.present().expect("the picture");
}

fn panel(
    area: &Area<'_>,
    title: &str,
    lines: &[&Line<'_>],
    of: fn(&Line<'_>) -> Spread,
    names: u32,
) {
    let count = i32::try_from(lines.len()).expect("few lines");
    let end = lines.iter().map(|line| of(line).upper).fold(1.0, f64::max) * 1.04;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(12)
        .y_label_area_size(names)
        .x_label_area_size(30)
        .build_cartesian_2d(0.0..end, (0..count).into_segmented())
        .expect("a chart");
    let label = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(row) => {
            let line = usize::try_from(count - 1 - row)
                .ok()
                .and_then(|row| lines.get(row));
            line.map(|line| format!("{}, {}", line.setup, line.tokens))
                .unwrap_or_default()
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(lines.len())
        .y_label_formatter(&label)
        .x_labels(6)
        .x_label_formatter(&|share| format!("{share:.1}"))
        .label_style(("sans-serif", 13))
        .draw()
        .expect("the axes");
    for (row, line) in (0..count).rev().zip(lines) {
        let share = of(line);
        let middle = SegmentValue::CenterOf(row);
        if share.is_noisy() {
            let text = Text::new(share.to_string(), (0.0, middle), ("sans-serif", 12));
            chart.draw_series([text]).expect("a text");
            continue;
        }
        let colour = if line.setup.starts_with("this filter") {
            RGBColor(0, 105, 170)
        } else {
            RGBColor(160, 168, 176)
        };
        let mut bar = Rectangle::new(
            [
                (0.0, SegmentValue::Exact(row)),
                (share.median, SegmentValue::Exact(row + 1)),
            ],
            colour.filled(),
        );
        bar.set_margin(4, 4, 0, 0);
        let spread = [(share.lower, middle.clone()), (share.upper, middle)];
        chart.draw_series([bar]).expect("a bar");
        chart
            .draw_series([PathElement::new(spread.to_vec(), BLACK)])
            .expect("its spread");
    }
}

//! The benchmark as a picture: each setup's throughput relative to no filter.

use super::report::Line;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (860, 420);

/// Writes an SVG of the setups' results with the smaller tokens.
pub(crate) fn write(file: &Path, lines: &[Line<'_>]) {
    let bytes = lines[0].token_bytes;
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| line.token_bytes == bytes && line.setup != "no filter")
        .collect();
    let count = i32::try_from(lines.len()).expect("few lines");
    let end = lines
        .iter()
        .map(|line| line.of_no_filter.upper)
        .fold(1.0, f64::max)
        * 1.02;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).expect("a file");
    let mut chart = ChartBuilder::on(&area)
        .caption(
            format!("Requests per second, no filter = 1 (tokens of {bytes} bytes)"),
            ("sans-serif", 18),
        )
        .margin(12)
        .y_label_area_size(330)
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
        .x_label_formatter(&|share| format!("{share:.1}"))
        .label_style(("sans-serif", 13))
        .draw()
        .expect("the axes");
    for (row, line) in (0..count).rev().zip(&lines) {
        let ours = line.setup.starts_with("this filter");
        let colour = if ours {
            RGBColor(0, 105, 170)
        } else {
            RGBColor(160, 168, 176)
        };
        let share = line.of_no_filter;
        let mut bar = Rectangle::new(
            [
                (0.0, SegmentValue::Exact(row)),
                (share.median, SegmentValue::Exact(row + 1)),
            ],
            colour.filled(),
        );
        bar.set_margin(4, 4, 0, 0);
        let spread = [
            (share.lower, SegmentValue::CenterOf(row)),
            (share.upper, SegmentValue::CenterOf(row)),
        ];
        chart.draw_series([bar]).expect("a bar");
        chart
            .draw_series([PathElement::new(spread.to_vec(), BLACK)])
            .expect("its spread");
    }
    area.present().expect("the picture");
}

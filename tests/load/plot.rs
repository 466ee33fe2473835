//! A small picture of some lines: SVG, because it is text.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 4] = ["#6b7280", "#2563eb", "#d97706", "#059669"];

/// A name, and pairs of how many connections and what they cost.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How much of an axis is what.
struct Scale {
    least: f64,
    most: f64,
    top: f64,
}

impl Scale {
    fn of(lines: &[Line]) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let top = points().map(|point| point.1).fold(1.0, f64::max);
        let step = 10_f64.powf(top.log10().floor());
        Self {
            least: points().map(|point| point.0).fold(f64::INFINITY, f64::min),
            most: points().map(|point| point.0).fold(0.0, f64::max),
            top: (top / step).ceil() * step,
        }
    }

    /// Logarithmic: ten times as many are as far apart everywhere.
    fn x(&self, value: f64) -> f64 {
        let decades = (self.most / self.least).log10();
        let part = if decades > 0.0 {
            (value / self.least).log10() / decades
        } else {
            0.5
        };
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)
    }
}

pub(crate) fn svg(title: &str, lines: &[Line]) -> String {
    let scale = Scale::of(lines);
    let mut parts = String::new();
    draw(&mut parts, title, lines, &scale).map_or_else(|_cause| String::new(), |()| parts)
}

fn draw(out: &mut String, title: &str, lines: &[Line], scale: &Scale) -> std::fmt::Result {
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(
        out,
        r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##
    )?;
    writeln!(
        out,
        r#"<text x="{LEFT}" y="24" font-size="14">{title}</text>"#
    )?;

    for part in 0..=4 {
        let value = scale.top * f64::from(part) / 4.0;
        let (y, right) = (scale.y(value), WIDTH - RIGHT);
        writeln!(
            out,
            r##"<path d="M{LEFT} {y:.1}H{right}" stroke="#d1d5db"/>"##
        )?;
        writeln!(
            out,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{value}</text>"#,
            LEFT - 8.0,
            y + 4.0
        )?;
    }

    for (x, _) in lines.first().iter().flat_map(|line| &line.points) {
        let y = HEIGHT - BOTTOM + 20.0;
        writeln!(
            out,
            r#"<text x="{:.1}" y="{y}" text-anchor="middle">{x}</text>"#,
            scale.x(*x)
        )?;
    }

    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let place = |(x, y): &(f64, f64)| (scale.x(*x), scale.y(*y));
        let path: Vec<_> = line
            .points
            .iter()
            .map(place)
            .map(|(x, y)| format!("{x:.1} {y:.1}"))
            .collect();
        writeln!(
            out,
            r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join("L")
        )?;

        for (x, y) in line.points.iter().map(place) {
            writeln!(
                out,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#
            )?;
        }

        if let Some((x, y)) = line.points.last().map(place) {
            writeln!(
                out,
                r#"<text x="{:.1}" y="{:.1}" fill="{colour}">{}</text>"#,
                x + 8.0,
                y + 4.0,
                line.name
            )?;
        }
    }

    writeln!(out, "</svg>")
}

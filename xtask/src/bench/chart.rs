//! Draws figures as an SVG: small panels side by side on one scale, so that they compare at a glance.
//!
//! Lines differ in colour (Okabe and Ito's palette, which colour-blind readers tell apart) and in the shape of their marks.

use super::engine::time;

/// Sizes in pixels.
const PANEL: (f64, f64) = (230.0, 210.0);
const GAP: (f64, f64) = (26.0, 70.0);
/// Left of the panels, above, right, below.
const MARGIN: (f64, f64, f64, f64) = (64.0, 92.0, 24.0, 56.0);
const MARK: f64 = 3.5;
/// Between a panel's edge and its first and last value.
const INSET: f64 = 16.0;
const LEGEND_STEP: f64 = 130.0;
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

const STYLE: &str = "text{font-family:system-ui,sans-serif;font-size:12px;fill:#333}\
    .title{font-size:17px;font-weight:600;fill:#111}.panel{font-weight:600}\
    .grid{stroke:#e4e4e4}.axis{stroke:#888;fill:none}\
    .line{fill:none;stroke-width:2;stroke-linejoin:round}.end{text-anchor:end}.middle{text-anchor:middle}";

/// Some lines on axes of their own.
pub(super) struct Panel {
    /// What they have in common.
    pub(super) title: String,
    /// At most as many as there are colours.
    pub(super) lines: Vec<Line>,
}

/// One value for each place on the x axis.
pub(super) struct Line {
    /// The same in every panel.
    pub(super) name: String,
    /// In the scale's unit.
    pub(super) values: Vec<f64>,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Microseconds above zero, logarithmic, so that slopes compare; as many decades as it takes.
    Time,
    /// Percent, from 0 to 100.
    Percent,
}

/// A scale and the values that are marked on it, lowest first.
struct Axis {
    scale: Scale,
    marks: Vec<f64>,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let marks = match scale {
            Scale::Time => {
                let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
                let high = values.fold(f64::NEG_INFINITY, f64::max).log10().ceil();
                (low as i32..=high as i32).map(|decade| 10_f64.powi(decade)).collect()
            }
            Scale::Percent => (0..=5).map(|fifth| f64::from(fifth) * 20.0).collect(),
        };
        Self { scale, marks }
    }

    fn label(&self, value: f64) -> String {
        match self.scale {
            Scale::Time => time(value),
            Scale::Percent => format!("{value}%"),
        }
    }

    /// How far above the lowest mark, in decades or percent.
    fn height(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Time => (value / self.marks[0]).log10(),
            Scale::Percent => value - self.marks[0],
        }
    }

    /// Pixels below the panel's upper edge.
    fn y(&self, value: f64) -> f64 {
        let all = self.height(self.marks[self.marks.len() - 1]).max(1.0);
        PANEL.1 * (1.0 - self.height(value) / all)
    }
}

/// The whole picture. `places` are the labels of the x axis, evenly spaced.
pub(super) fn draw(title: &str, x_title: &str, places: &[&str], scale: Scale, rows: &[Vec<Panel>]) -> String {
    let drawn = rows.iter().flatten().flat_map(|panel| &panel.lines);
    let axis = Axis::new(scale, drawn.flat_map(|line| line.values.iter().copied()));
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default() as f64;
    let (left, above, right, below) = MARGIN;
    let width = left + columns * (PANEL.0 + GAP.0) - GAP.0 + right;
    let height = above + rows.len() as f64 * (PANEL.1 + GAP.1) - GAP.1 + below;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text class=\"title\" x=\"{left}\" y=\"30\">{title}</text>\n"
    );
    for (n, line) in rows.iter().flatten().next().map_or(&[][..], |panel| &panel.lines).iter().enumerate() {
        let (x, y) = (left + 5.0 + n as f64 * LEGEND_STEP, 52.0);
        svg += &mark(n, x, y);
        svg += &format!("<text x=\"{}\" y=\"{}\">{}</text>\n", x + 10.0, y + 4.0, line.name);
    }
    for (r, row) in rows.iter().enumerate() {
        for (c, panel) in row.iter().enumerate() {
            let corner = (left + c as f64 * (PANEL.0 + GAP.0), above + r as f64 * (PANEL.1 + GAP.1));
            svg += &format!("<g transform=\"translate({} {})\">\n", corner.0, corner.1);
            svg += &axes(panel, places, &axis, c == 0);
            svg += &lines(panel, places.len(), &axis);
            svg += "</g>\n";
        }
    }
    let (x, y) = (left + (width - left - right) / 2.0, height - 14.0);
    svg + &format!("<text class=\"middle\" x=\"{x:.1}\" y=\"{y}\">{x_title}</text>\n</svg>\n")
}

fn axes(panel: &Panel, places: &[&str], axis: &Axis, labelled: bool) -> String {
    let (width, height) = PANEL;
    let mut svg = format!("<text class=\"panel\" y=\"-10\">{}</text>\n", panel.title);
    for value in &axis.marks {
        let at = axis.y(*value);
        svg += &format!("<path class=\"grid\" d=\"M0 {at:.1}H{width}\"/>\n");
        if labelled {
            svg += &format!(
                "<text class=\"end\" x=\"-8\" y=\"{:.1}\">{}</text>\n",
                at + 4.0,
                axis.label(*value)
            );
        }
    }
    for (n, place) in places.iter().enumerate() {
        let at = x(n, places.len());
        svg += &format!("<path class=\"axis\" d=\"M{at:.1} {height}v4\"/>");
        svg += &format!("<text class=\"middle\" x=\"{at:.1}\" y=\"{}\">{place}</text>\n", height + 18.0);
    }
    svg + &format!("<path class=\"axis\" d=\"M0 0V{height}H{width}\"/>\n")
}

fn lines(panel: &Panel, places: usize, axis: &Axis) -> String {
    let mut svg = String::new();
    for (n, line) in panel.lines.iter().enumerate() {
        let points: Vec<_> =
            line.values.iter().enumerate().map(|(i, value)| (x(i, places), axis.y(*value))).collect();
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let (path, colour) = (path.join("L"), COLOURS[n % COLOURS.len()]);
        svg += &format!("<path class=\"line\" stroke=\"{colour}\" d=\"M{path}\"/>\n");
        svg.extend(points.iter().map(|(x, y)| mark(n, *x, *y)));
    }
    svg
}

fn x(place: usize, places: usize) -> f64 {
    INSET + (PANEL.0 - 2.0 * INSET) * place as f64 / (places - 1).max(1) as f64
}

/// Circle, square or triangle.
fn mark(n: usize, x: f64, y: f64) -> String {
    let (colour, side) = (COLOURS[n % COLOURS.len()], 2.0 * MARK);
    match n % COLOURS.len() {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{MARK}\" fill=\"{colour}\"/>\n"),
        1 => {
            let (x, y) = (x - MARK, y - MARK);
            format!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side}\" height=\"{side}\" fill=\"{colour}\"/>\n"
            )
        }
        _ => {
            let (x, y) = (x - MARK, y + MARK);
            format!("<path d=\"M{x:.1} {y:.1}h{side}l-{MARK} -{side}z\" fill=\"{colour}\"/>\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_time_is_drawn_higher_and_a_later_place_further_right() {
        let axis = Axis::new(Scale::Time, [1.0, 70.0].into_iter());
        assert_eq!((axis.y(1.0), axis.y(100.0)), (PANEL.1, 0.0));
        assert!(axis.y(50.0) < axis.y(10.0));
        assert_eq!((x(0, 5), x(4, 5)), (INSET, PANEL.0 - INSET));
    }

    #[test]
    fn shares_are_drawn_on_all_of_a_hundred_percent() {
        let axis = Axis::new(Scale::Percent, [40.0].into_iter());
        assert_eq!([0.0, 25.0, 100.0].map(|share| axis.y(share)), [PANEL.1, PANEL.1 * 0.75, 0.0]);
        assert_eq!(axis.label(40.0), "40%");
    }
}

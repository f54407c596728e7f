//! Pure: herds as bars in an SVG, one panel for each image, one group for each method, one bar for
//! each size of a herd. A bar is as long as the makespan over the bound.

use super::{method::Method, outcome::Herd};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 60.0;
const BAR: f64 = 14.0;
const GAP: f64 = 10.0;
const TITLE: f64 = 34.0;
const FOOT: f64 = 26.0;

/// Shades for the sizes of a herd, the smallest first.
const SHADES: [&str; 4] = ["#8fb8de", "#2f6db5", "#1b3f6b", "#0b1f38"];

/// A drawing that grows downwards.
struct Canvas {
    drawn: String,
    y: f64,
    /// Pixels for each bound.
    scale: f64,
}

// === impl Canvas ===

impl Canvas {
    fn text(&mut self, x: f64, y: f64, style: &str, text: &str) {
        self.drawn += &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>\n");
    }

    fn bar(&mut self, ratio: Option<f64>, shade: &str, hosts: usize) {
        let (y, middle) = (self.y, self.y + BAR - 3.0);
        let length = ratio.unwrap_or(0.0) * self.scale;
        self.drawn += &format!(
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" \
             fill=\"{shade}\"/>\n"
        );
        let told = ratio.map_or("failed".to_owned(), |ratio| format!("{ratio:.2}"));
        let told = format!("{told} <tspan fill=\"#777\">{hosts} hosts</tspan>");
        self.text(LEFT + length + 5.0, middle, "", &told);
        self.y += BAR;
    }

    /// The bound, as a line over a panel that began at `top`.
    fn line(&mut self, top: f64) {
        let (x, bottom) = (LEFT + self.scale, self.y);
        self.drawn += &format!(
            "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" \
             stroke=\"#c0392b\" stroke-dasharray=\"4 3\"/>\n"
        );
    }

    fn panel(&mut self, image: &str, herds: &[&Herd]) {
        let title = format!("{image}: makespan over the bound");
        self.text(LEFT, self.y + 22.0, "font-weight=\"bold\"", &title);
        self.y += TITLE;
        let top = self.y;
        for method in methods(herds) {
            let middle = self.y + herds.len() as f64 * BAR / 2.0 + 4.0;
            self.text(LEFT - 8.0, middle, "text-anchor=\"end\"", method.name());
            for (herd, shade) in herds.iter().zip(SHADES.iter().cycle()) {
                let row = herd.rows.iter().find(|row| row.method == method);
                let ratio = row.and_then(|row| row.ratio(herd.bound));
                self.bar(ratio, shade, herd.hosts);
            }
            self.y += GAP;
        }
        self.line(top);
    }
}

/// The drawing, with `caption` below it.
pub(crate) fn svg(herds: &[Herd], caption: &str) -> String {
    let ratios = herds
        .iter()
        .flat_map(|herd| herd.rows.iter().filter_map(|row| row.ratio(herd.bound)));
    let longest = ratios.fold(1.0, f64::max);
    let mut canvas = Canvas {
        drawn: String::new(),
        y: 0.0,
        // Behind the longest bar stands what it is.
        scale: (WIDTH - LEFT - RIGHT - 45.0) / longest,
    };
    for image in images(herds) {
        let same: Vec<_> = herds.iter().filter(|herd| herd.image == image).collect();
        canvas.panel(image, &same);
    }
    let (style, y) = ("fill=\"#777\"", canvas.y + 16.0);
    canvas.text(LEFT, y, style, caption);
    let (height, drawn) = (canvas.y + FOOT, canvas.drawn);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{drawn}</svg>\n"
    )
}

fn images(herds: &[Herd]) -> Vec<&str> {
    let mut images: Vec<&str> = Vec::new();
    for herd in herds {
        if !images.contains(&herd.image.as_str()) {
            images.push(&herd.image);
        }
    }
    images
}

fn methods(herds: &[&Herd]) -> Vec<Method> {
    let mut methods: Vec<Method> = Vec::new();
    for row in herds.iter().flat_map(|herd| &herd.rows) {
        if !methods.contains(&row.method) {
            methods.push(row.method);
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::herd::outcome::{Outcome, Row};

    fn herd(image: &str, hosts: usize, makespan: f64) -> Herd {
        let round = Outcome {
            totals: vec![makespan],
            first_bytes: Vec::new(),
            upstream_bytes: 0.0,
            helper_bytes: 0.0,
            cpu_seconds: 0.0,
            peak_memory: None,
            busy: 0.0,
        };
        let row = |method, rounds| Row { method, rounds };
        Herd {
            image: image.to_owned(),
            image_bytes: 1,
            hosts,
            bound: 10.0,
            rows: vec![
                row(Method::Darter, vec![round]),
                row(Method::Nginx, Vec::new()),
            ],
        }
    }

    #[test]
    fn every_herd_has_a_bar_in_the_panel_of_its_image() {
        let herds = [herd("a", 4, 10.0), herd("a", 8, 20.0), herd("b", 4, 40.0)];
        let svg = svg(&herds, "caption");
        let count = |text: &str| svg.matches(text).count();
        assert_eq!(count("makespan over the bound"), 2);
        assert_eq!(count("height=\"14\""), 6);
        assert_eq!(count("failed"), 3);
        assert_eq!(count("stroke-dasharray"), 2);
        // The longest is 4 bounds long, the others 1 and 2.
        let scale = (WIDTH - LEFT - RIGHT - 45.0) / 4.0;
        for bounds in [1.0, 2.0, 4.0] {
            let width = format!("width=\"{:.1}\"", bounds * scale);
            assert_eq!(count(&width), 1, "{width}");
        }
    }
}

//! The figures of a run as a Markdown table, one column a server, with the ratios to Isobar.

use std::fmt::Write;

/// A row: what was measured, and one figure for each server, where it has one.
pub struct Row {
    /// What the figure is, with its unit.
    pub name: String,
    /// In the order of the servers. Smaller is better in every row.
    pub figures: Vec<Option<f64>>,
}

/// The table. `base` is the column that the others are divided by: a ratio of 3 says that the other
/// server needs three times as much. Without a base there are no ratios.
pub fn table(servers: &[String], base: Option<usize>, rows: &[Row]) -> String {
    let ratios: Vec<usize> = match base {
        Some(base) => (0..servers.len()).filter(|it| *it != base).collect(),
        None => Vec::new(),
    };
    let mut cells = vec!["".to_owned()];
    cells.extend(servers.iter().cloned());
    cells.extend(
        ratios
            .iter()
            .filter_map(|it| Some(format!("{} ÷ {}", servers[*it], servers[base?]))),
    );
    let mut text = line(&cells);
    let _infallible = writeln!(text, "|---|{}", "---:|".repeat(cells.len() - 1));
    for row in rows {
        let mut cells = vec![row.name.replace('|', "\\|")];
        cells.extend(
            row.figures
                .iter()
                .map(|it| it.map_or("–".to_owned(), number)),
        );
        for other in &ratios {
            let ratio = base.and_then(|base| Some(row.figures[*other]? / row.figures[base]?));
            cells.push(
                ratio
                    .filter(|it| it.is_finite())
                    .map_or("–".to_owned(), |it| format!("{}×", number(it))),
            );
        }
        text.push_str(&line(&cells));
    }
    text
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_by_the_base() {
        let rows = [
            Row {
                name: "a|b, µs".to_owned(),
                figures: vec![Some(9.0), Some(3.0)],
            },
            Row {
                name: "c".to_owned(),
                figures: vec![None, Some(1234.5)],
            },
        ];
        let servers = ["prometheus".to_owned(), "isobar".to_owned()];
        assert_eq!(
            table(&servers, Some(1), &rows),
            "|  | prometheus | isobar | prometheus ÷ isobar |\n\
             |---|---:|---:|---:|\n\
             | a\\|b, µs | 9.00 | 3.00 | 3.00× |\n\
             | c | – | 1234 | – |\n"
        );
        assert_eq!(
            table(&servers[..1], None, &rows[1..]),
            "|  | prometheus |\n|---|---:|\n| c | – | 1234 |\n"
        );
    }
}

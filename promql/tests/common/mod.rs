//! What several tests share.
#![allow(dead_code, reason = "each test uses another part of it")]

pub(crate) mod memory;
pub(crate) mod script;

use std::path::PathBuf;

use isobar_promql::parse::Expr;

/// The folder with Prometheus' scripts and parser cases.
pub(crate) fn promqltest_folder() -> PathBuf {
    std::env::var_os("ISOBAR_PROMQLTEST").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../shared/promqltest"
            ))
        },
        PathBuf::from,
    )
}

/// The scripts of the folder by name, with their text.
pub(crate) fn scripts() -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(promqltest_folder()) else {
        return Vec::new();
    };
    let mut scripts = Vec::new();
    for entry in entries {
        let path = entry.expect("entry of the folder").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "test")
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text = std::fs::read_to_string(&path).expect("script");
            scripts.push((name, text));
        }
    }
    scripts.sort();
    scripts
}

/// The tree in text, without its positions and with the matchers in the order of printing.
pub(crate) fn tree(expr: &Expr) -> String {
    let mut expr = expr.clone();
    sort_matchers(&mut expr);
    let text = format!("{expr:?}");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    loop {
        let next = ["start: ", "end: "].iter().filter_map(|name| {
            let at = rest.find(name)?;
            Some((at, at + name.len()))
        });
        let Some((at, behind)) = next.min() else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..at]);
        rest = rest[behind..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
}

fn sort_matchers(expr: &mut Expr) {
    match expr {
        Expr::Aggregate(e) => {
            sort_matchers(&mut e.expr);
            e.param.iter_mut().for_each(sort_matchers);
        }
        Expr::Binary(e) => {
            sort_matchers(&mut e.lhs);
            sort_matchers(&mut e.rhs);
        }
        Expr::Call(e) => e.args.iter_mut().for_each(sort_matchers),
        Expr::MatrixSelector(e) => e.selector.matchers.sort_by_cached_key(ToString::to_string),
        Expr::VectorSelector(e) => e.matchers.sort_by_cached_key(ToString::to_string),
        Expr::Subquery(e) => sort_matchers(&mut e.expr),
        Expr::Paren(e) => sort_matchers(&mut e.expr),
        Expr::Unary(e) => sort_matchers(&mut e.expr),
        Expr::Number(_) | Expr::String(_) => {}
    }
}

//! How product code is set: lines that fit, and paragraphs in what is long.

use super::source::product;

/// Columns of a line.
const COLUMNS: usize = 100;
/// A function with more lines than this and at least so many statements has a blank line.
const LONG: (usize, usize) = (20, 4);

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_function(line: &str) -> bool {
    let words = line.split("fn ").next().unwrap_or_default();
    line.contains("fn ")
        && words.split_whitespace().all(|word| {
            matches!(word, "async" | "const" | "unsafe" | "default") || word.starts_with("pub")
        })
}

/// The lines of a function's body, from the line that names it on. rustfmt closes it in the column
/// where it begins.
fn body<'a, 'b>(lines: &'b [&'a str]) -> Option<&'b [&'a str]> {
    let column = indent(lines.first()?);
    let open = lines
        .iter()
        .position(|line| line.ends_with(['{', ';', '}']))?;
    if !lines[open].ends_with('{') {
        return None;
    }
    let close = lines[open..]
        .iter()
        .position(|line| line.trim() == "}" && indent(line) == column)?;
    Some(&lines[open + 1..open + close])
}

/// How many statements stand in a body, the last expression with them.
fn statements(body: &[&str]) -> usize {
    let column = body
        .iter()
        .find(|line| !line.is_empty())
        .map(|line| indent(line));
    let begins = |line: &&&str| {
        Some(indent(line)) == column
            && !line
                .trim_start()
                .starts_with(['}', ')', ']', '.', '/', '#'])
    };
    body.iter().filter(begins).count()
}

#[test]
fn a_line_of_product_code_fits() {
    let mut found = Vec::new();
    for of in product() {
        for source in of.files.values() {
            let lines = (1..).zip(source.code.lines());
            found.extend(
                lines
                    .filter(|(_, line)| line.chars().count() > COLUMNS)
                    .map(|(number, _)| format!("{}:{number}", source.path)),
            );
        }
    }
    assert!(found.is_empty(), "over {COLUMNS} columns: {found:#?}");
}

#[test]
fn a_long_function_of_product_code_has_paragraphs() {
    let mut found = Vec::new();
    for of in product() {
        for source in of.files.values() {
            let lines: Vec<_> = source.code.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let Some(body) = is_function(line).then(|| body(&lines[at..])).flatten() else {
                    continue;
                };
                let is_long = body.len() > LONG.0 && statements(body) >= LONG.1;
                if is_long && !body.contains(&"") {
                    found.push(format!("{}:{}", source.path, at + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "without a blank line: {found:#?}");
}

#[test]
fn statements_are_counted_as_rustfmt_sets_them() {
    let code = [
        "    async fn one(",
        "        two: u8,",
        "    ) -> u8 {",
        "        // A reason.",
        "        let three = match two {",
        "            0 => 1,",
        "            other => other,",
        "        };",
        "",
        "        three",
        "            .max(2)",
        "    }",
    ];
    let body = body(&code).unwrap();
    assert!(is_function(code[0]) && body.len() == 8 && body.contains(&""));
    assert_eq!(statements(body), 2);
}

//! Sizes that may shrink but not grow: files of at most 800 lines, functions of at most 70 but for a few.

use super::Source;

const MAX_FILE_LINES: usize = 800;
const LONG_FUNCTION_LINES: usize = 70;
/// How many functions of a thousand may be long.
const LONG_FUNCTIONS_PER_THOUSAND: usize = 20;

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    let (mut all, mut long) = (0, Vec::new());
    for source in sources {
        let lines = source.text.lines().count();
        if lines > MAX_FILE_LINES {
            findings.push(format!("{}: {lines} lines, more than {MAX_FILE_LINES}: split it", source.path.display()));
        }
        for (line, length) in functions(&source.text) {
            all += 1;
            if length > LONG_FUNCTION_LINES {
                long.push(format!("{}:{line}: a function of {length} lines", source.path.display()));
            }
        }
    }
    if long.len() * 1000 > all * LONG_FUNCTIONS_PER_THOUSAND {
        findings.push(format!("{} of {all} functions are longer than {LONG_FUNCTION_LINES} lines:", long.len()));
        findings.extend(long);
    }
    findings
}

/// The first line and the length of every function: from its `fn` to the brace that closes at the same indentation.
/// The code is formatted, so this is exact enough.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let mut words = code.split_whitespace().filter(|w| {
            !matches!(*w, "pub" | "async" | "const" | "unsafe" | "extern" | "\"C\"") && !w.starts_with("pub(")
        });
        if words.next() != Some("fn") || code.ends_with(';') {
            continue;
        }
        let closes = |line: &&str| line.starts_with('}') || line.get(indent..).is_some_and(|l| l.starts_with('}'));
        let whole = |line: &str| line.len() - line.trim_start().len() == indent;
        let length = if code.ends_with('}') {
            1
        } else {
            lines[start + 1..].iter().position(|l| closes(l) && whole(l)).map_or(1, |n| n + 2)
        };
        found.push((start + 1, length));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::functions;

    #[test]
    fn functions_are_measured_to_their_own_brace() {
        let text =
            "fn a() {}\n\nimpl X {\n    pub(crate) async fn b() {\n        if c {\n        }\n    }\n    fn d();\n}\n";
        assert_eq!(functions(text), [(1, 1), (4, 4)]);
    }
}

//! Blocks of PEM in a text, found as Go's library finds them: what is no block is passed over.

use base64::{Engine, engine::general_purpose::STANDARD};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// One block.
pub(crate) struct Block {
    /// What stands after `BEGIN`.
    pub(crate) label: String,
    /// Whether lines such as `Proc-Type: …` stand before the data.
    pub(crate) has_headers: bool,
    pub(crate) bytes: Vec<u8>,
}

/// All blocks of a text, in order.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let (mut found, mut rest) = (Vec::new(), text.lines());
    while let Some(line) = rest.next() {
        let Some(label) = line.trim_end().strip_prefix("-----BEGIN ").and_then(|it| it.strip_suffix("-----")) else {
            continue;
        };
        let mut after = rest.clone();
        if let Some(block) = body(label, &mut after) {
            found.push(block);
            rest = after;
        }
    }
    found
}

fn body<'a>(label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Option<Block> {
    let (end, mut data, mut has_headers) = (format!("-----END {label}-----"), String::new(), false);
    for line in lines {
        let line = line.trim();
        if line == end {
            let bytes = STANDARD.decode(&data).ok()?;
            return Some(Block { label: label.to_owned(), has_headers, bytes });
        }
        match line.contains(':') && data.is_empty() {
            true => has_headers = true,
            false => data.push_str(line),
        }
    }
    None
}

/// The certificate in a block, if it holds just that.
pub(crate) fn certificate(block: &Block) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(&block.bytes).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_block_is_passed_over() {
        let text = "before\n-----BEGIN A-----\nKey: value\n\neA==\n-----END A-----\n-----BEGIN B-----\n!\n-----END B-----\n\
                    -----BEGIN C-----\neHk=\n-----END C-----\n-----BEGIN D-----\neA==\n";
        let found: Vec<_> = blocks(text).into_iter().map(|it| (it.label, it.has_headers, it.bytes)).collect();
        assert_eq!(found, [("A".to_owned(), true, b"x".to_vec()), ("C".to_owned(), false, b"xy".to_vec())]);
    }
}

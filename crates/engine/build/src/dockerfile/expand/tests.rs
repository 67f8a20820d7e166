//! Tables of words and what they expand to, from the Dockerfile reference.

use super::*;

fn environment() -> Vec<String> {
    ["PWD=/home", "FOO=bar", "EMPTY=", "foo=abcdef", "path=foo.tar.gz", "string=foobarbaz", "LIST=80 443", "é=accent"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn words_expand() {
    let environment = environment();
    for (source, expected) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he'llo", "!single-quote"),
        ("he\\'llo", "he'llo"),
        ("\"a b\" c", "a b c"),
        ("\"a \\\" b\"", "a \" b"),
        ("\"a \\b\"", "a \\b"),
        ("'$PWD'", "$PWD"),
        ("\"$PWD\"", "/home"),
        ("\\$PWD", "$PWD"),
        ("$PWD-x", "/home-x"),
        ("${PWD}x", "/homex"),
        ("${PWD", "!unsupported modifier (\u{fffd}) in substitution"),
        ("${}", "!bad substitution"),
        ("${:x}", "!bad substitution"),
        ("$", "$"),
        ("a$.b", "a$.b"),
        ("$1x", "x"),
        ("${NONE}", ""),
        ("${NONE:-word}", "word"),
        ("${FOO:-word}", "bar"),
        ("${EMPTY:-word}", "word"),
        ("${EMPTY-word}", ""),
        ("${NONE-word}", "word"),
        ("${FOO:+word}", "word"),
        ("${EMPTY:+word}", ""),
        ("${EMPTY+word}", "word"),
        ("${NONE:-${FOO}x}", "barx"),
        ("${NONE:-a\\}b}", "a}b"),
        ("${NONE:-'}'}", "}"),
        ("${FOO:?set it}", "bar"),
        ("${NONE:?set it}", "!NONE: set it"),
        ("${NONE?}", "!NONE: is not allowed to be unset"),
        ("${EMPTY:?}", "!EMPTY: is not allowed to be empty"),
        ("${FOO:=x}", "!unsupported modifier (:=) in substitution"),
        ("${FOO:-x", "!missing '}'"),
        ("${path#*.}", "tar.gz"),
        ("${path##*.}", "gz"),
        ("${path%.*}", "foo.tar"),
        ("${path%%.*}", "foo"),
        ("${foo#a?c}", "def"),
        ("${foo#x}", "abcdef"),
        ("${string/ba?/x}", "fooxbaz"),
        ("${string//ba?/x}", "fooxx"),
        ("${string/b*/x}", "foox"),
        ("${string/nothing}", "!missing '/' in ${}"),
        ("${FOO:#x}", "!unsupported modifier (:#) in substitution"),
        ("$é", "accent"),
        ("tab\\", "tab"),
    ] {
        match (Lex::new('\\').word(source, &environment[..]), expected.strip_prefix('!')) {
            (Ok(found), None) => assert_eq!(found, expected, "{source}"),
            (Err(error), Some(part)) => {
                assert!(error.starts_with("failed to process \"") && error.contains(part), "{source}: {error}");
            }
            (found, _) => panic!("{source}: {found:?} instead of {expected}"),
        }
    }
}

#[test]
fn another_character_can_escape() {
    let environment = environment();
    assert_eq!(Lex::new('`').word("c:\\`$PWD", &environment[..]).unwrap(), "c:\\$PWD");
}

#[test]
fn texts_split_after_they_expand() {
    let environment = environment();
    let words = |source| Lex::new('\\').words(source, &environment[..]).unwrap();
    assert_eq!(words("$LIST 8080/udp"), ["80", "443", "8080/udp"]);
    assert_eq!(words("\"$LIST\""), ["80 443"]);
    assert_eq!(words("a\\ b  'c d'e"), ["a b", "c de"]);
}

#[test]
fn endless_texts_end() {
    let deep = "${A:-".repeat(10_000);
    assert!(Lex::new('\\').word(&deep, &[][..] as &[String]).is_err());
    let large = [format!("A={}", "x".repeat(100_000))];
    assert!(Lex::new('\\').word(&"$A".repeat(11), &large[..]).unwrap_err().contains("more than"));
}

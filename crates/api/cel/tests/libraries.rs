//! What the libraries of Kubernetes compute, and what that costs: figures are upstream's.

use pintle_cel::library::{Authorize, AuthorizerValue, Decision, Query, authorizer_type};
use pintle_cel::rules::kubernetes_env;
use pintle_cel::{Budget, CostEstimate, UnknownSizes, Value, Variables};
use std::sync::Arc;

struct Everything;

impl Authorize for Everything {
    fn authorize(&self, query: &Query) -> Option<Decision> {
        let reason = format!("{} {}", query.verb, query.path.as_deref().unwrap_or(&query.resource));
        Some(Decision { allowed: true, reason: reason.into(), error: None })
    }
}

fn eval(source: &str) -> (Result<bool, String>, CostEstimate, u64) {
    let library = pintle_cel::library::mutations();
    let env = kubernetes_env().extend().variable("authorizer", authorizer_type()).library(library).build();
    let checked = env.check(source).unwrap_or_else(|issues| panic!("{issues}"));
    let estimate = checked.estimate_cost(&UnknownSizes);
    let program = checked.into_program(source).unwrap_or_else(|issues| panic!("{issues}"));
    let authorizer = AuthorizerValue::new(Arc::new(Everything));
    let variables = Variables::new().with("authorizer", Value::opaque(authorizer));
    let (value, cost) = program.eval_cost(&variables, &mut Budget::unlimited());
    let value = value.map(|value| value.as_bool().unwrap_or_default()).map_err(|error| error.to_string());
    (value, estimate, cost)
}

#[test]
fn expressions_hold() {
    for source in [
        "url('https://user@example.com:80/a%20b?k=1&k=2#f').getHost() == 'example.com:80'",
        "url('https://[::1]:80/x').getHostname() == '::1' && url('/p').getPort() == ''",
        "url('https://a/?k=1&k=2').getQuery() == {'k': ['1', '2']} && !isURL('../x') && isURL('/x')",
        "'abc 123 def 456'.find('[0-9]+') == '123' && 'a'.find('b') == ''",
        "'abc 123 def 456'.findAll('[0-9]+') == ['123', '456'] && '123 456'.findAll('[0-9]+', 1) == ['123']",
        "[1, 2, 3].isSorted() && !['b', 'a'].isSorted() && [1.0, 2.0].sum() == 3.0 && [3, 1].min() == 1",
        "[3, 1].max() == 3 && [1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2 && [1].indexOf(5) == -1",
        "[duration('1m'), duration('1s')].sum() == duration('61s')",
        "quantity('1.5Gi') == quantity('1536Mi') && quantity('2').isGreaterThan(quantity('1500m'))",
        "quantity('50k').add(20).sub(quantity('100k')).sub(-50000).asInteger() == 20",
        "quantity('1').isInteger() && !quantity('1500m').isInteger() && !isQuantity('1x') && sign(quantity('-1')) == -1",
        "quantity('200M').compareTo(quantity('0.2G')) == 0 && quantity('50.703k').asApproximateFloat() == 50703.0",
        "ip('192.168.0.1').family() == 4 && isIP('::1') && !isIP('::ffff:1.2.3.4') && ip('127.0.0.1').isLoopback()",
        "ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1') && string(ip('::1')) == '::1'",
        "cidr('192.168.0.0/24').containsIP(ip('192.168.0.1')) && cidr('10.0.0.0/8').containsIP('10.1.1.1')",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && cidr('10.0.0.1/8').masked() == cidr('10.0.0.0/8')",
        "cidr('10.0.0.1/8').ip() == ip('10.0.0.1') && cidr('::1/64').prefixLength() == 64 && isCIDR('::1/128')",
        "!format.dns1123Label().validate('ok').hasValue() && format.named('nope') == optional.none()",
        "format.named('dns1123Label').value().validate('Nope_').hasValue()",
        "format.uuid().validate('123e4567-e89b-12d3-a456-426614174000') == optional.none()",
        "format.date().validate('2021-13-01').value() == ['invalid date'] && !format.uri().validate('/x').hasValue()",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.0', true) && !isSemver('v1.0')",
        "semver('v01.2', true).minor() == 2 && semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1",
        "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 1], [1]) && sets.intersects([1], [2, 1])",
        "'tacocat'.charAt(3) == 'o' && 'ábc'.indexOf('c') == 2 && 'hello mellow'.lastIndexOf('ello') == 7",
        "'hello mellow'.lastIndexOf('ello', 6) == 1 && 'hello'.indexOf('l', 3) == 3 && 'x'.indexOf('y') == -1",
        "['a', 'b'].join('-') == 'a-b' && 'TacoCat'.lowerAscii() == 'tacocat' && 'a'.upperAscii() == 'A'",
        "'hello hello'.replace('he', 'we', 1) == 'wello hello' && 'abc'.replace('', '_') == '_a_b_c_'",
        "'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'abc'.split('') == ['a', 'b', 'c'] && 'a'.split('a', 0) == []",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && '  x '.trim() == 'x'",
        "strings.quote('a\\n\"b\"') == '\"a\\\\n\\\\\"b\\\\\"\"' && '%s=%d %.2f'.format([dyn('a'), dyn(1), dyn(2.5)]) == 'a=1 2.50'",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3] && [[1], [2, 3]].flatten() == [1, 2, 3] && lists.range(3) == [0, 1, 2]",
        "[3, 1, 2].sort() == [1, 2, 3] && [1, 2, 1].distinct() == [1, 2] && [1, 2].reverse() == [2, 1]",
        "['bb', 'a', 'ccc'].sortBy(e, size(e)) == ['a', 'bb', 'ccc'] && [[[1]], [[2]]].flatten(2) == [1, 2]",
        "{'a': 1}.all(k, v, k == 'a' && v == 1) && [5].exists(i, v, i == 0 && v == 5)",
        "[2, 4].transformList(i, v, v > 2, i) == [1] && {'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'} && [1, 2].existsOne(i, v, v == 2)",
        "authorizer.group('apps').resource('deployments').check('get').reason() == 'get deployments'",
        "authorizer.serviceAccount('ns', 'sa').path('/x').check('get').allowed()",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
    ] {
        assert_eq!(eval(source).0, Ok(true), "{source}");
    }
}

#[test]
fn expressions_fail_with_reasons() {
    for (source, error) in [
        (
            "url('../x').getHost() == ''",
            "URL parse error during conversion from string: parse \"../x\": invalid URI for request",
        ),
        ("[0].filter(x, x > 0).min() == 0", "min called on empty list"),
        ("quantity('1500m').asInteger() == 1", "cannot convert value to integer"),
        ("ip('fe80::1%eth0').isLoopback()", "IP address \"fe80::1%eth0\" with zone value is not allowed"),
        ("semver('1.0').major() == 1", "No Major.Minor.Patch elements found"),
        ("'abc'.charAt(4) == ''", "index out of range: 4"),
        ("'abc'.substring(2, 1) == ''", "invalid substring range. start: 2, end: 1"),
        (
            "'%d'.format(['x']) == ''",
            "error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("[1].slice(0, 2) == []", "cannot slice(0, 2), list is length 1"),
        ("authorizer.path(' ').check('get').allowed()", "path must not be empty"),
        ("authorizer.serviceAccount('ns', '!').path('/').check('get').allowed()", "Invalid service account name"),
        ("{'a': 1, 'b': 2}.transformMapEntry(k, v, {'x': v}) == {}", "insert failed: key x already exists"),
    ] {
        assert_eq!(eval(source).0, Err(error.to_owned()), "{source}");
    }
}

#[test]
fn costs_are_upstreams() {
    let mut wrong = Vec::new();
    // Literal lists and maps cost nothing at evaluation: they are made beforehand.
    for (source, min, max, actual) in [
        ("url('https:://kubernetes.io/').getHost() != 'x'", 5, 5, 4),
        ("url('https:://kubernetes.io/') == url('https:://kubernetes.io/')", 7, 9, 7),
        ("'ABCDEFGHIJ abcdefghij'.lowerAscii() == 'ABCDEFGHIJ abcdefghij'.lowerAscii()", 7, 9, 9),
        ("strings.quote('ABCDEFGHIJ abcdefghij') == strings.quote('ABCDEFGHIJ abcdefghij')", 7, 11, 9),
        ("authorizer.path('/healthz').check('get').allowed()", 350_003, 350_003, 350_003),
        (
            "authorizer.group('').resource('pods').labelSelector('a=b').check('get').errored()",
            350_115,
            350_115,
            350_115,
        ),
        ("quantity('200M') == quantity('0.2G') && quantity('0.2G') == quantity('200M')", 3, 6, 6),
        ("quantity('50k').add(quantity('20')) == quantity('50.02k')", 5, 5, 5),
        ("quantity('50k').add(20).sub(quantity('100k')).asInteger() > 0", 6, 6, 6),
        ("format.named('dns1123Label').value() == format.named('dns1123Label').value()", 5, 11, 5),
        ("format.named('dns1123Label').value().validate('my-name').hasValue()", 35, 35, 11),
        ("sets.contains([1, 2, 3, 4], [2, 3])", 29, 29, 9),
        ("semver('1.0.0').isLessThan(semver('1.1.0'))", 3, 3, 3),
        ("{'a': 1, 'b': 2}.all(k, v, v > 0)", 37, 41, 11),
        ("[1, 2].existsOne(i, v, v > 0)", 18, 20, 10),
    ] {
        let (_, estimate, cost) = eval(source);
        if (estimate.min, estimate.max, cost) != (min, max, actual) {
            wrong.push(format!("{source}: {}..{} {cost}, not {min}..{max} {actual}", estimate.min, estimate.max));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

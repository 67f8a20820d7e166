//! Tables of Dockerfiles and what they say, and broken ones.

use super::*;

fn steps(text: &str) -> Vec<Instruction> {
    let dockerfile = parse(format!("FROM x\n{text}").as_bytes(), "Dockerfile").unwrap();
    dockerfile.stages[0].steps.iter().map(|step| step.instruction.clone()).collect()
}

fn line(words: &[&str], shell: bool) -> CommandLine {
    CommandLine { words: words.iter().map(|w| (*w).to_owned()).collect(), shell }
}

fn run(words: &[&str], shell: bool) -> Instruction {
    Instruction::Run { line: line(words, shell), flags: vec![] }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn instructions_are_read() {
    let cases: Vec<(&str, Instruction)> = vec![
        ("RUN echo hi", run(&["echo hi"], true)),
        ("run echo a \\\n  b", run(&["echo a   b"], true)),
        ("RUN echo a \\\n# comment\n  b", run(&["echo a   b"], true)),
        ("RUN echo 'a \\\\'", run(&["echo 'a \\\\'"], true)),
        ("RUN [\"a\", \"b c\"]", run(&["a", "b c"], false)),
        ("RUN ['a']", run(&["['a']"], true)),
        ("RUN <<EOF\necho a\n  echo b\nEOF", run(&["echo a\n  echo b\n"], true)),
        ("RUN <<-EOF\n\techo a\n\tEOF", run(&["echo a\n"], true)),
        ("RUN cat <<'E' > /x\n$a\nE", run(&["cat <<'E' > /x\n$a\nE"], true)),
        ("CMD x y", Instruction::Cmd(line(&["x y"], true))),
        ("CMD []", Instruction::Cmd(line(&[], false))),
        ("ENTRYPOINT [\"x\"]", Instruction::Entrypoint(line(&["x"], false))),
        ("ENV A=1 B=\"two words\"", Instruction::Env(pairs(&[("A", "1"), ("B", "\"two words\"")]))),
        ("ENV A  one   two", Instruction::Env(pairs(&[("A", "one   two")]))),
        ("LABEL a=b\\ c", Instruction::Label { pairs: pairs(&[("a", "b\\ c")]), literal: false }),
        ("ARG A B=c", Instruction::Arg(vec![("A".into(), None), ("B".into(), Some("c".into()))])),
        ("EXPOSE 80/tcp 53/udp", Instruction::Expose(strings(&["53/udp", "80/tcp"]))),
        ("VOLUME [\"/a b\", \"/c\"]", Instruction::Volume(strings(&["/a b", "/c"]))),
        ("VOLUME /v /u", Instruction::Volume(strings(&["/v", "/u"]))),
        ("WORKDIR /a b", Instruction::WorkDir("/a b".into())),
        ("USER  5:6 ", Instruction::User("5:6".into())),
        ("STOPSIGNAL 9", Instruction::StopSignal("9".into())),
        ("MAINTAINER me <m@x>", Instruction::Maintainer("me <m@x>".into())),
        ("ONBUILD RUN echo x", Instruction::OnBuild("RUN echo x".into())),
        ("SHELL [\"/bin/ash\", \"-c\"]", Instruction::Shell(strings(&["/bin/ash", "-c"]))),
        (
            "HEALTHCHECK --interval=5s --retries=2 CMD true",
            Instruction::HealthCheck(HealthCheck {
                test: strings(&["CMD-SHELL", "true"]),
                interval: 5_000_000_000,
                retries: 2,
                ..HealthCheck::default()
            }),
        ),
        (
            "HEALTHCHECK NONE",
            Instruction::HealthCheck(HealthCheck { test: strings(&["NONE"]), ..HealthCheck::default() }),
        ),
        (
            "COPY --from=b --chown=1:2 a b c/",
            Instruction::Copy(Copying {
                sources: strings(&["a", "b"]),
                destination: "c/".into(),
                from: "b".into(),
                chown: "1:2".into(),
                ..Copying::default()
            }),
        ),
        (
            "ADD [\"a b\", \"/c d\"]",
            Instruction::Add(Copying { sources: strings(&["a b"]), destination: "/c d".into(), ..Copying::default() }),
        ),
        (
            "COPY <<\"E\" /x\n$a\nE",
            Instruction::Copy(Copying {
                inline: vec![Inline { name: "E".into(), content: "$a\n".into(), expand: false }],
                destination: "/x".into(),
                ..Copying::default()
            }),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(steps(text), [expected], "{text}");
    }
}

#[test]
fn directives_count_at_the_beginning_only() {
    let escape = |text: &str| parse(text.as_bytes(), "Dockerfile").map(|d| d.escape);
    assert_eq!(escape("# escape=`\nFROM a"), Ok('`'));
    assert_eq!(escape("# syntax=docker/dockerfile:1\n# check=skip=all\n# EsCaPe = `\nFROM a"), Ok('`'));
    assert_eq!(escape("# a comment\n# escape=`\nFROM a"), Ok('\\'));
    assert_eq!(escape("\n# escape=`\nFROM a"), Ok('\\'));
    assert!(escape("# escape=x\nFROM a").unwrap_err().contains("invalid escape token 'x'"));
    assert!(escape("# escape=`\n# escape=`\nFROM a").unwrap_err().contains("only one escape parser directive"));
    let dockerfile = parse(b"# escape=`\nFROM a\nRUN x `\n  c:\\y", "Dockerfile").unwrap();
    assert_eq!(dockerfile.stages[0].steps[0].instruction, run(&["x   c:\\y"], true));
}

#[test]
fn stages_and_arguments_before_them() {
    let text = "ARG V=1\nFROM --platform=linux/amd64 a:$V AS Build\nRUN x\nFROM build\n";
    let dockerfile = parse(text.as_bytes(), "Dockerfile").unwrap();
    assert_eq!(dockerfile.arguments.len(), 1);
    let shown: Vec<_> =
        dockerfile.stages.iter().map(|s| (s.base.as_str(), s.name.as_str(), s.platform.as_str())).collect();
    assert_eq!(shown, [("a:$V", "build", "linux/amd64"), ("build", "", "")]);
}

#[test]
fn mistakes_are_told_as_docker_does() {
    for (text, message) in [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("# only\n", "failed to parse Dockerfile: file with no instructions"),
        ("RUN x", "no build stage in current context"),
        ("FROM a\n\nBAR x", "dockerfile parse error on line 3: unknown instruction: BAR (did you mean ARG?)"),
        ("FROM a\nWHATEVER x", "dockerfile parse error on line 2: unknown instruction: WHATEVER"),
        ("FROM a\nrn x", "dockerfile parse error on line 2: unknown instruction: rn (did you mean run?)"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        (
            "FROM a AS 1x",
            "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        (
            "FROM a\nCOPY x",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM a\nCOPY --fro=b x y", "dockerfile parse error on line 2: unknown flag: --fro (did you mean from?)"),
        ("FROM a\nCOPY --from x y", "dockerfile parse error on line 2: missing a value on flag: --from"),
        ("FROM a\nENV A", "failed to parse Dockerfile: ENV must have two arguments"),
        (
            "FROM a\nENV A=b c",
            "failed to parse Dockerfile: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM a\nENV", "dockerfile parse error on line 2: ENV requires at least one argument"),
        (
            "FROM a\nCMD [1]",
            "failed to parse Dockerfile: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "FROM a\nSHELL x",
            "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form, not SHELL x",
        ),
        (
            "FROM a\nONBUILD ONBUILD RUN x",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("FROM a\nONBUILD FROM x", "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nWORKDIR", "dockerfile parse error on line 2: WORKDIR requires exactly one argument"),
        ("FROM a\nHEALTHCHECK x", "dockerfile parse error on line 2: Unknown type \"X\" in HEALTHCHECK (try CMD)"),
        ("FROM a\nHEALTHCHECK CMD", "dockerfile parse error on line 2: Missing command after HEALTHCHECK CMD"),
        ("FROM a\nRUN <<E\nx", "failed to parse Dockerfile: unterminated heredoc"),
    ] {
        assert_eq!(parse(text.as_bytes(), "Dockerfile").unwrap_err(), message, "{text}");
    }
}

#[test]
fn empty_continuation_lines_are_warned_of() {
    let dockerfile = parse(b"FROM a\nRUN x \\\n\n  y\n", "Dockerfile").unwrap();
    assert_eq!(dockerfile.warnings.len(), 2);
    assert_eq!(dockerfile.warnings[0], "[WARNING]: Empty continuation line found in: RUN x   y");
}

#[test]
fn only_what_expands_expands() {
    let variables = strings(&["A=x"]);
    let mut document = steps("COPY <<E $A/\na '$A' \"${A}\"\nE").remove(0);
    document.expand(&Lex::new('\\'), &variables[..]).unwrap();
    let Instruction::Copy(copying) = document else { panic!("it is a COPY") };
    assert_eq!((copying.inline[0].content.as_str(), copying.destination.as_str()), ("a 'x' \"x\"\n", "x/"));
    let mut command = steps("RUN echo $A").remove(0);
    command.expand(&Lex::new('\\'), &variables[..]).unwrap();
    assert_eq!(command, run(&["echo $A"], true));
}

#[test]
fn broken_and_large_files_end() {
    let whole: &[u8] = b"# escape=`\nARG A=1\nFROM --platform=x a AS b\nRUN <<E\nx\nE\nCOPY --from=b [\"a\", \"b\"]\nENV A=\"b ${A:-c}\"\nONBUILD RUN x\n";
    pintle_noise::feed(&[whole, b"FROM a\nRUN b"], 3_000, |bytes| {
        let Ok(dockerfile) = parse(bytes, "Dockerfile") else { return };
        for stage in dockerfile.stages {
            for mut step in stage.steps {
                let _ = step.instruction.expand(&Lex::new(dockerfile.escape), &["A=1".to_owned()][..]);
            }
        }
    });
    assert!(parse(&vec![b'a'; MAX_BYTES + 1], "Dockerfile").unwrap_err().contains("larger than"));
    assert!(
        parse(&[b"FROM a\nRUN ".to_vec(), vec![b'x'; 70_000]].concat(), "D").unwrap_err().contains("line greater than")
    );
    let many = "FROM a\n".repeat(MAX_STAGES + 1);
    assert!(parse(many.as_bytes(), "D").unwrap_err().contains("stages"));
    let onbuild = format!("FROM a\n{}RUN x", "ONBUILD ".repeat(1_000));
    assert!(parse(onbuild.as_bytes(), "D").is_err());
}

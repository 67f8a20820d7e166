//! Process 1 for others: of a sandbox's pid namespace, or, when it is given a program, of a container's.

fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let code = match args.split_first() {
        Some((dashes, program)) if dashes == "--" => pintle_shim::init::run(program),
        _ => pintle_shim::pause::run(),
    };
    std::process::exit(code);
}

//! How upstream's structs print, and the names of their types: from the declarations in Go source.
//!
//! Not a Go parser: it reads the plain struct and named-type declarations that API packages consist of.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules whose packages are read: folder, prefix of OpenAPI names, import path.
const MODULES: [(&str, &str, &str); 4] = [
    ("api", "io.k8s.api", "k8s.io/api"),
    ("apimachinery", "io.k8s.apimachinery", "k8s.io/apimachinery"),
    ("apiextensions-apiserver", "io.k8s.apiextensions-apiserver", "k8s.io/apiextensions-apiserver"),
    ("kube-aggregator", "io.k8s.kube-aggregator", "k8s.io/kube-aggregator"),
];

/// What Go says of one field.
#[derive(Clone, Debug)]
pub struct GoField {
    /// The type as error messages print it, without leading pointers.
    pub ty: String,
    pub is_struct: bool,
    pub pointer: bool,
    pub omit_empty: bool,
    pub omit_zero: bool,
    /// The embedded structs on the way to it, joined by dots.
    pub via: String,
}

/// Fields by JSON name, of definitions by full name.
pub type GoFields = BTreeMap<String, BTreeMap<String, GoField>>;

/// Reads the modules below a folder.
pub fn read(folder: &Path) -> Result<GoFields> {
    let mut source = Source::default();
    for (module, _, import) in MODULES {
        source.read_folder(&folder.join(module), &folder.join(module), import)?;
    }
    let mut fields = GoFields::new();
    for ((package, name), declared) in &source.types {
        if let (Declared::Struct(_), Some(full)) = (declared, definition(package, name)) {
            fields.insert(full, source.flatten(package, name));
        }
    }
    Ok(fields)
}

fn definition(package: &str, name: &str) -> Option<String> {
    let (_, prefix, import) = MODULES.iter().find(|(_, _, import)| package.starts_with(&format!("{import}/")))?;
    Some(format!("{prefix}{}.{name}", package[import.len()..].replace('/', ".")))
}

type Imports = BTreeMap<String, String>;

#[derive(Debug)]
enum Declared {
    Struct(Vec<Line>),
    /// Another type's text, and whether it is an alias.
    Named(String, bool),
}

/// One line of a struct: an embedded one has no JSON name.
#[derive(Debug)]
struct Line {
    name: Option<String>,
    ty: String,
    options: Vec<String>,
}

#[derive(Default)]
struct Source {
    types: BTreeMap<(String, String), Declared>,
    /// Imports differ from file to file.
    imports: BTreeMap<(String, String), Imports>,
}

/// What a type's text resolves to.
struct Resolved {
    shown: String,
    is_struct: bool,
    pointer: bool,
}

impl Source {
    fn read_folder(&mut self, root: &Path, folder: &Path, import: &str) -> Result<()> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "testdata" | "client" | "examples" | "test" | "vendor") {
                    self.read_folder(root, &path, import)?;
                }
            } else if is_source(&name) {
                let relative = folder.strip_prefix(root)?.to_string_lossy().into_owned();
                self.read_file(&std::fs::read_to_string(&path)?, &format!("{import}/{relative}"));
            }
        }
        Ok(())
    }

    fn read_file(&mut self, text: &str, package: &str) {
        let imports = imports(text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            at += 1;
            let Some((name, rest)) = line.strip_prefix("type ").and_then(|rest| rest.split_once(' ')) else { continue };
            let declared = if rest.starts_with("struct") {
                let body = if rest.ends_with('}') {
                    0
                } else {
                    lines[at..].iter().take_while(|line| !line.starts_with('}')).count()
                };
                let fields = lines[at..at + body].iter().filter_map(|line| struct_line(line)).collect();
                at += body;
                Declared::Struct(fields)
            } else if rest.starts_with("interface") || rest.starts_with("func") || name.contains(['(', '[']) {
                continue;
            } else {
                let alias = rest.strip_prefix("= ");
                let ty = alias.unwrap_or(rest).split(' ').next().unwrap_or_default();
                Declared::Named(ty.to_owned(), alias.is_some())
            };
            let key = (package.to_owned(), name.to_owned());
            self.imports.insert(key.clone(), imports.clone());
            self.types.insert(key, declared);
        }
    }

    fn flatten(&self, package: &str, name: &str) -> BTreeMap<String, GoField> {
        let key = (package.to_owned(), name.to_owned());
        let (Some(Declared::Struct(lines)), Some(imports)) = (self.types.get(&key), self.imports.get(&key)) else {
            return BTreeMap::new();
        };
        let mut fields = BTreeMap::new();
        for line in lines.iter().filter(|line| line.name.as_deref() != Some("-")) {
            match &line.name {
                Some(name) => {
                    let resolved = self.resolve(&line.ty, package, imports);
                    let has = |option: &str| line.options.iter().any(|o| o == option);
                    let field = GoField {
                        ty: resolved.shown,
                        is_struct: resolved.is_struct,
                        pointer: resolved.pointer,
                        omit_empty: has("omitempty"),
                        omit_zero: has("omitzero"),
                        via: String::new(),
                    };
                    fields.insert(name.clone(), field);
                }
                None => {
                    let (package, embedded) = place(line.ty.trim_start_matches('*'), package, imports);
                    for (name, mut field) in self.flatten(&package, &embedded) {
                        let deeper = if field.via.is_empty() { String::new() } else { format!(".{}", field.via) };
                        field.via = format!("{embedded}{deeper}");
                        fields.entry(name).or_insert(field);
                    }
                }
            }
        }
        fields
    }

    fn resolve(&self, text: &str, package: &str, imports: &Imports) -> Resolved {
        let ty = text.trim_start_matches('*');
        let pointer = ty.len() < text.len();
        let plain = |shown: String| Resolved { shown, is_struct: false, pointer };
        if let Some(item) = ty.strip_prefix("[]") {
            let item = self.resolve(item, package, imports);
            return plain(format!("[]{}{}", if item.pointer { "*" } else { "" }, item.shown));
        }
        if let Some((key, value)) = ty.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            let (key, value) = (self.resolve(key, package, imports), self.resolve(value, package, imports));
            return plain(format!("map[{}]{}", key.shown, value.shown));
        }
        if ty == "byte" {
            return plain("uint8".into());
        }
        let (of, name) = place(ty, package, imports);
        let key = (of.clone(), name.clone());
        let shown = format!("{}.{name}", of.rsplit('/').next().unwrap_or_default());
        match self.types.get(&key) {
            None if ty.contains('.') => plain(shown),
            None => plain(ty.to_owned()),
            Some(Declared::Struct(_)) => Resolved { shown, is_struct: true, pointer },
            Some(Declared::Named(other, alias)) => {
                let other = self.resolve(other, &of, &self.imports[&key]);
                let shown = if *alias { other.shown } else { shown };
                Resolved { shown, is_struct: other.is_struct, pointer }
            }
        }
    }
}

/// The package and name of a type's text.
fn place(ty: &str, package: &str, imports: &Imports) -> (String, String) {
    match ty.split_once('.') {
        Some((alias, name)) => (imports.get(alias).cloned().unwrap_or_else(|| alias.to_owned()), name.to_owned()),
        None => (package.to_owned(), ty.to_owned()),
    }
}

fn is_source(name: &str) -> bool {
    name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with("zz_") && name != "generated.pb.go"
}

fn imports(text: &str) -> Imports {
    let head = text.split("\ntype ").next().unwrap_or_default();
    let quoted = head.lines().filter_map(|line| {
        let (before, rest) = line.split_once('"')?;
        let path = rest.split('"').next()?;
        let alias = before.trim_start_matches("import").trim();
        let alias = if alias.is_empty() { path.rsplit('/').next()? } else { alias };
        Some((alias.to_owned(), path.to_owned()))
    });
    quoted.collect()
}

/// A field with a `json` tag, or an embedded struct.
fn struct_line(line: &str) -> Option<Line> {
    let (head, tag) = line.split_once('`')?;
    let words: Vec<&str> = head.split_whitespace().collect();
    let json = tag.split_once("json:\"")?.1.split('"').next()?;
    let mut options = json.split(',').map(str::to_owned);
    let name = options.next()?;
    let options: Vec<String> = options.collect();
    let embedded = name.is_empty() && (options.iter().any(|o| o == "inline") || words.len() == 1);
    let ty = words.last()?.to_string();
    let own = words.first()?.to_string();
    let name = if embedded { None } else { Some(if name.is_empty() { own } else { name }) };
    Some(Line { name, ty, options })
}

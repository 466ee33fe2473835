//! The product code as a tree of files, and what they import of each other. It reads code as
//! rustfmt sets it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vvs_tests::root;

use super::metadata;

/// What stands in front of a module that is in no program.
const FOR_TESTS: [&str; 2] = ["#[cfg(test)]", r#"#[cfg(any(test, feature = "testing"))]"#];

/// Names of modules from the crate's root on; empty for the root itself.
pub(super) type Module = Vec<String>;

/// A file that is compiled into a program.
pub(super) struct Source {
    /// From the repository's root.
    pub(super) path: String,
    /// All of it.
    pub(super) text: String,
    /// What stands before the tests at its foot.
    pub(super) code: String,
}

/// A crate of the product, with its files by their modules.
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) files: BTreeMap<Module, Source>,
}

impl Crate {
    /// Reads the library or the program whose root is this file.
    fn read(name: &str, root: &Path) -> Self {
        let mut this = Self {
            name: name.to_owned(),
            files: BTreeMap::new(),
        };
        this.take(Vec::new(), root);
        this
    }

    fn take(&mut self, module: Module, file: &Path) {
        let text = std::fs::read_to_string(file)
            .unwrap_or_else(|cause| panic!("{}: {cause}", file.display()));
        let folder = if module.is_empty() {
            file.parent().unwrap().to_owned()
        } else {
            file.with_extension("")
        };

        let mut is_test = false;
        for line in text.lines() {
            if let Some(child) = declared(line)
                && !is_test
            {
                let child_file = folder.join(child).with_extension("rs");
                let child_module = [module.as_slice(), &[child.to_owned()]].concat();
                self.take(child_module, &child_file);
            }
            is_test = FOR_TESTS.contains(&line) || is_test && line.starts_with("#[");
        }

        let source = Source {
            path: file
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            code: before_tests(&text).to_owned(),
            text,
        };
        self.files.insert(module, source);
    }

    /// The modules of this crate that a module names, in its imports and in paths.
    pub(super) fn imports(&self, module: &Module) -> Vec<Module> {
        let code = without_comments(&self.files[module].code);
        let mut paths = Vec::new();
        let mut rest = code.as_str();
        while let Some((line, after)) = rest.split_once('\n') {
            if let Some(tree) = used(line) {
                let tree = [tree, "\n", after].concat();
                paths.extend(leaves(tree.split(';').next().unwrap()));
            }
            rest = after;
        }
        for start in ["crate::", "super::"] {
            paths.extend(code.match_indices(start).map(|(at, _)| {
                let is_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
                let end = code[at..].find(|letter| !is_path(letter));
                code[at..end.map_or(code.len(), |end| at + end)].to_owned()
            }));
        }

        // One that ends so is a tree, whose paths are here already.
        paths
            .iter()
            .filter(|path| !path.ends_with("::"))
            .filter_map(|path| self.resolve(module, path))
            .filter(|found| found != module)
            .collect()
    }

    /// The module in which a path ends, when that is one of this crate.
    fn resolve(&self, from: &Module, path: &str) -> Option<Module> {
        let mut names: Vec<_> = path
            .split("::")
            .map(|name| name.split(" as ").next().unwrap().trim().to_owned())
            .collect();
        let mut module = match names.remove(0).as_str() {
            "crate" => Module::new(),
            "super" => from[..from.len().checked_sub(1)?].to_owned(),
            "self" => from.clone(),
            child => {
                let child = [from.as_slice(), &[child.to_owned()]].concat();
                self.files.contains_key(&child).then_some(child)?
            }
        };
        while names.first().is_some_and(|name| name == "super") {
            names.remove(0);
            module.pop()?;
        }

        // What the root passes on is where it stands.
        if module.is_empty()
            && let Some(name) = names.first()
            && let Some(target) = self.passed_on(name)
        {
            return Some(target);
        }

        for name in names {
            module.push(name);
            if !self.files.contains_key(&module) {
                module.pop();
                break;
            }
        }

        Some(module)
    }

    /// The module of an item that the root has with `pub use`, or of a module that it holds inline.
    fn passed_on(&self, item: &str) -> Option<Module> {
        let code = &self.files[&Module::new()].code;
        if code.contains(&format!("mod {item} {{")) {
            return Some(vec![item.to_owned()]);
        }

        let uses = code.split("\npub").filter_map(|rest| {
            let rest = rest.strip_prefix("(crate)").unwrap_or(rest);
            rest.strip_prefix(" use ")?.split(';').next()
        });
        let path = uses
            .flat_map(leaves)
            .find(|path| path.ends_with(&format!("::{item}")))?;
        let path = path.strip_prefix("crate::").unwrap_or(&path);
        let module: Module = path.split("::").take(1).map(str::to_owned).collect();
        self.files.contains_key(&module).then_some(module)
    }
}

/// The text before the tests at its foot.
fn before_tests(text: &str) -> &str {
    let is_tests = |(at, mark): &(usize, &str)| {
        let next = text[at + mark.len()..].lines().next().unwrap_or_default();
        next.contains("mod ") && next.ends_with('{')
    };
    let tests = text.match_indices("\n#[cfg(test)]\n").find(is_tests);
    tests.map_or(text, |(at, _)| &text[..=at])
}

/// What a line imports, or begins to import.
fn used(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    line.strip_prefix("pub ")
        .unwrap_or(line)
        .strip_prefix("use ")
}

/// The module that a line declares, when its file stands elsewhere.
fn declared(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let line = line.strip_prefix("pub ").unwrap_or(line);
    line.strip_prefix("mod ")?.strip_suffix(';')
}

fn without_comments(code: &str) -> String {
    code.lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths of a `use` with braces.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree];
    };

    let body = rest.rsplit_once('}').unwrap().0;
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in body.chars() {
        match letter {
            ',' if depth == 0 => parts.push(String::new()),
            '{' | '}' => {
                depth += if letter == '{' { 1 } else { -1 };
                parts.last_mut().unwrap().push(letter);
            }
            _ => parts.last_mut().unwrap().push(letter),
        }
    }

    parts
        .iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| leaves(part.trim()))
        .map(|leaf| format!("{head}{leaf}"))
        .collect()
}

/// All crates that are compiled into programs.
pub(super) fn product() -> Vec<Crate> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .filter(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let is_for_tests = |name: &str| name.starts_with("vvs-test");
            !dependencies.is_empty() && !is_for_tests(package["name"].as_str().unwrap())
        })
        .map(|package| {
            let targets = package["targets"].as_array().unwrap();
            let is_lib = |target: &&serde_json::Value| target["kind"][0] == "lib";
            let target = targets.iter().find(is_lib).unwrap();
            let file = PathBuf::from(target["src_path"].as_str().unwrap());
            Crate::read(package["name"].as_str().unwrap(), &file)
        })
        .collect()
}

#[test]
fn every_use_of_a_tree_is_a_path() {
    assert_eq!(
        leaves("crate::{\n    a::{self, B},\n    c as d,\n}"),
        ["crate::a::self", "crate::a::B", "crate::c as d"]
    );
}

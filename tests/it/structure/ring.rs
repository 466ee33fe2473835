//! No ring of files: of two modules that stand beside each other, at most one imports the other, be
//! it over others. A module and what is inside of it are one thing; a crate's root is a module like
//! those that it declares.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Crate, Module, product};

/// Which of these modules an import is from, and to.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// The imports between modules that stand in this one.
fn between(of: &Crate, parent: &Module) -> Edges {
    let child = |module: &Module| {
        let inside = module.strip_prefix(parent.as_slice())?;
        match inside.first() {
            Some(name) => Some(name.clone()),
            None => parent.is_empty().then(|| "the root".to_owned()),
        }
    };

    let mut edges = Edges::new();
    for module in of.files.keys() {
        let Some(from) = child(module) else { continue };
        for target in of.imports(module) {
            if let Some(to) = child(&target)
                && to != from
            {
                edges.entry(from.clone()).or_default().insert(to);
            }
        }
    }

    edges
}

/// Everything that can be reached from here.
fn reached(edges: &Edges, from: &str) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        for next in edges.get(at).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    seen
}

/// The modules in this one that reach themselves.
fn ring(edges: &Edges) -> Vec<&String> {
    edges
        .keys()
        .filter(|name| reached(edges, name).contains(*name))
        .collect()
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_ring() {
    for of in product() {
        let parents: BTreeSet<Module> = of
            .files
            .keys()
            .filter(|module| !module.is_empty())
            .map(|module| module[..module.len() - 1].to_owned())
            .collect();
        for parent in parents {
            let edges = between(&of, &parent);
            let ring = ring(&edges);
            assert!(
                ring.is_empty(),
                "{} {}: {ring:?} import each other: {edges:#?}",
                of.name,
                parent.join("::")
            );
        }
    }
}

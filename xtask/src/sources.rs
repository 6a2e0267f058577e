//! The string literals of a crate's sources, to tell which queries it still has.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use proc_macro2::{TokenStream, TokenTree};
use syn::Lit;

use crate::workspace::files;

/// Every string literal in the Rust files of a crate.
#[derive(Debug, Default)]
pub(crate) struct Literals(HashSet<String>);

impl Literals {
    /// Reads the crate in `folder`.
    pub(crate) fn of(folder: &Path) -> anyhow::Result<Self> {
        let mut literals = Self::default();
        for part in ["src", "tests", "examples", "benches"] {
            literals.read(&folder.join(part))?;
        }
        Ok(literals)
    }

    fn read(&mut self, folder: &Path) -> anyhow::Result<()> {
        for path in files(folder)? {
            if path.is_dir() {
                self.read(&path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let tokens: TokenStream =
                    text.parse().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
                self.take(tokens);
            }
        }
        Ok(())
    }

    fn take(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.take(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Lit::Str(text) = Lit::new(literal) {
                        self.0.insert(text.value());
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }

    /// Whether `text` is one of the literals or several joined, as the SQL macros join them (`"a" + "b"`).
    pub(crate) fn make_up(&self, text: &str) -> bool {
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for from in 0..text.len() {
            if reached[from] {
                for literal in self.0.iter().filter(|literal| text[from..].starts_with(literal.as_str())) {
                    reached[from + literal.len()] = true;
                }
            }
        }
        reached[text.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::Literals;

    #[test]
    fn a_query_is_a_literal_or_several_joined() {
        let mut literals = Literals::default();
        literals.take(r##"query!(r#"select "a" "# + "from b", "from c")"##.parse().unwrap());
        assert!(literals.make_up(r#"select "a" from b"#));
        assert!(literals.make_up("from c"));
        assert!(!literals.make_up(r#"select "a" from d"#));
    }
}

//! Form-encoded parameters with brackets (`metadata[appointment_id]=…`, `expand[]=…`), as both protocols send them.
//!
//! Pairs stay flat and in order: nesting is read by prefix, so no tree is built for values nobody asks for.

use std::collections::BTreeMap;

/// Decoded parameters of one request.
#[derive(Clone, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Decodes a body or a query string; bytes that are not UTF-8 become replacement characters.
    pub(crate) fn parse(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The last value of a parameter; an empty value counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// `name[key]=value` pairs, one level deep.
    pub(crate) fn map(&self, name: &str) -> BTreeMap<String, String> {
        let inner =
            |key: &str| key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']').map(str::to_owned);
        self.0.iter().filter_map(|(key, value)| Some((inner(key)?, value.clone()))).collect()
    }

    /// Values of `name[]`, `name[0]`, `name[1]`, … in the order sent.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let inside = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('['));
        self.0.iter().filter(|(key, _)| inside(key)).map(|(_, value)| value.as_str()).collect()
    }

    /// Parameter names without their brackets.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.split('[').next().unwrap_or(key))
    }

    /// The same parameters in one fixed order: equal requests give equal texts.
    pub(crate) fn canonical(&self) -> String {
        let mut pairs = self.0.clone();
        pairs.sort();
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn brackets_are_read_as_maps_and_lists() {
        let form = Form::parse(b"amount=25&metadata%5Bvisit%5D=a+b&expand[]=x&expand[1]=y&description=");
        assert_eq!(form.get("amount"), Some("25"));
        assert_eq!(form.get("description"), None);
        assert_eq!(form.map("metadata")["visit"], "a b");
        assert_eq!(form.list("expand"), ["x", "y"]);
        assert_eq!(
            form.names().collect::<Vec<_>>(),
            ["amount", "metadata", "expand", "expand", "description"]
        );
    }

    #[test]
    fn the_order_of_parameters_does_not_tell_requests_apart() {
        assert_eq!(Form::parse(b"b=2&a=1").canonical(), Form::parse(b"a=1&b=2").canonical());
    }
}

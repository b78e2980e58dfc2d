//! A settings file as a concrete syntax tree: every byte of it, comments and white space too.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstNode, CstObject, CstObjectProp, CstRootNode};

/// The text is not a settings file that can be edited safely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// It is not JSON.
    #[error("it is not JSON: line {line}, column {column}: {problem}")]
    Syntax {
        /// Counts from 1.
        line: usize,
        /// Counts from 1, in characters.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A value has another type than the client expects.
    #[error("{path} should be {expected}")]
    WrongType {
        /// Where, such as `hooks.Stop`.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A key appears twice, and programs differ in which one they take.
    #[error("{path} appears twice; delete one of them")]
    Twice {
        /// Which, such as `hooks.Stop`.
        path: String,
    },
}

/// A parsed settings file.
pub(super) struct Document {
    pub(super) tree: CstRootNode,
    pub(super) byte_order_mark: bool,
    pub(super) is_blank: bool,
}

impl Document {
    /// Parses a text that can be edited safely: an object, whose hooks are not ambiguous.
    pub(super) fn parse(text: &str) -> Result<Self, EditError> {
        // Comments and trailing commas are all that people's settings have beyond JSON.
        let options = ParseOptions {
            allow_comments: true,
            allow_trailing_commas: true,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        let (byte_order_mark, json) = match text.strip_prefix('\u{feff}') {
            Some(json) => (true, json),
            None => (false, text),
        };
        let tree = CstRootNode::parse(json, &options).map_err(|error| EditError::Syntax {
            line: error.line_display(),
            column: error.column_display(),
            problem: lower_first(&error.kind().to_string()),
        })?;
        if tree.value().is_some_and(|value| value.as_object().is_none()) {
            return Err(wrong("the file's content", "an object"));
        }
        let document = Self { tree, byte_order_mark, is_blank: json.trim().is_empty() };
        document.refuse_repeated_keys()?;
        Ok(document)
    }

    /// The object that maps events to groups, if there is one.
    pub(super) fn hooks(&self) -> Option<CstObject> {
        property(&self.tree.object_value()?, "hooks")?.object_value()
    }

    fn refuse_repeated_keys(&self) -> Result<(), EditError> {
        let Some(root) = self.tree.object_value() else { return Ok(()) };
        let names = |object: &CstObject| {
            object.properties().iter().filter_map(CstObjectProp::decoded_name).collect::<Vec<_>>()
        };
        if names(&root).iter().filter(|name| *name == "hooks").count() > 1 {
            return Err(EditError::Twice { path: "hooks".to_owned() });
        }
        let Some(hooks) = self.hooks() else { return Ok(()) };
        let mut events = names(&hooks);
        events.sort_unstable();
        match events.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(EditError::Twice { path: format!("hooks.{}", pair[0]) }),
            None => Ok(()),
        }
    }

    /// Whether both say the same in the same order, comments included: they differ in white space
    /// and trailing commas at most.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let words = |document: &Self| {
            let mut words = Vec::new();
            collect_words(&document.tree.clone().into(), &mut words);
            if document.tree.value().is_none() {
                words.extend(["{", "}"].map(str::to_owned));
            }
            words
        };
        words(self) == words(other)
    }
}

/// The property of this name; the last one, as the client reads it.
pub(super) fn property(object: &CstObject, name: &str) -> Option<CstObjectProp> {
    let named = |prop: &CstObjectProp| prop.decoded_name().as_deref() == Some(name);
    object.properties().into_iter().rev().find(named)
}

/// The text of the property of this name, if it is text.
pub(super) fn string(object: &CstObject, name: &str) -> Option<String> {
    property(object, name)?.value()?.as_string_lit()?.decoded_value().ok()
}

pub(super) fn wrong(path: &str, expected: &'static str) -> EditError {
    EditError::WrongType { path: path.to_owned(), expected }
}

fn collect_words(node: &CstNode, words: &mut Vec<String>) {
    match node {
        CstNode::Container(container) => {
            container.children().iter().for_each(|child| collect_words(child, words));
        }
        CstNode::Leaf(leaf) => {
            if !(node.is_whitespace() || node.is_newline() || node.is_comma()) {
                words.push(leaf.to_string());
            }
        }
    }
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

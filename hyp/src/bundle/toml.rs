//! The text of `vms.toml` to sections of `key = value`, with line numbers.
//!
//! `vms.toml` is TOML of which it uses the plain part: array tables (`[[vm]]`), simple
//! keys, and values that are a string, number, boolean or an array of those. Text that
//! is not TOML and TOML that goes beyond this (dotted keys, inline tables, dates) is a
//! [`Problem`]; so whatever is accepted here means to any other TOML parser what it
//! means to us.
//!
//! The `toml_parser` crate reads the text; `Collector` only gathers what it sees. The
//! `toml` crate above it was measured and not taken (`docs/adr/0001-manifest.md`): nested
//! arrays take it more stack than EL2 has. Here nesting is refused as it starts, and
//! [`MAX_TEXT`] and [`MAX_TOKENS`] bound the heap.
//!
//! A broken section doesn't take the others down: its problems stay with it, and when the
//! text as a whole has a syntax error, it is read again piece by piece, cut where a line
//! starts with `[[`, so that an array that was never closed can't swallow what follows.

use crate::bundle::error::{MAX_PROBLEMS, Problem, Shown, note};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use toml_parser::decoder::{Encoding, IntegerRadix, ScalarKind};
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, Expected, ParseError, Source, Span};

/// The longest text read, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;
/// The most tokens read (48 KiB of them on the heap); a line `key = value` has six.
pub const MAX_TOKENS: usize = 2048;

/// A header and the lines below it, up to the next header.
#[derive(Debug, Default)]
pub struct Section<'s> {
    /// The line of the header.
    pub line: u32,
    /// The name in the header; `None` for what stands before the first header.
    pub name: Option<Cow<'s, str>>,
    /// The values, in the order of the text.
    pub pairs: Vec<Pair<'s>>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// One `key = value`.
#[derive(Debug)]
pub struct Pair<'s> {
    /// The line of the key.
    pub line: u32,
    /// The key.
    pub key: Cow<'s, str>,
    /// The value.
    pub value: Value<'s>,
}

/// A value.
#[derive(Debug, PartialEq, Eq)]
pub enum Value<'s> {
    /// A string, without its quotes and escapes.
    String(Cow<'s, str>),
    /// An integer.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// An array, none of whose elements is an array.
    Array(Vec<Value<'s>>),
    /// A value that `vms.toml` has no use for: what TOML calls it.
    Other(&'static str),
}

/// Reads `text`.
pub fn parse(text: &str) -> Vec<Section<'_>> {
    let first_line = 1;
    if text.len() > MAX_TEXT {
        return unreadable(first_line, format!("the text has {} bytes, more than {MAX_TEXT}", text.len()));
    }
    let mut tokens_left = MAX_TOKENS;
    let whole = parse_piece(text, first_line, &mut tokens_left);
    if tokens_left == 0 || whole.iter().all(|section| section.problems.is_empty()) {
        return whole;
    }
    let mut sections = Vec::new();
    let mut tokens_left = MAX_TOKENS;
    for (piece, line) in pieces(text) {
        let found = parse_piece(piece, line, &mut tokens_left);
        sections.extend(found.into_iter().filter(|section| !section.is_blank()));
        if tokens_left == 0 {
            break;
        }
    }
    sections
}

impl Section<'_> {
    /// Whether nothing is lost by ignoring this section.
    fn is_blank(&self) -> bool {
        self.name.is_none() && self.pairs.is_empty() && self.problems.is_empty()
    }
}

/// A text that yields nothing but a problem.
fn unreadable(line: u32, message: String) -> Vec<Section<'static>> {
    let problem = Problem { line, message };
    alloc::vec![Section { line, problems: alloc::vec![problem], ..Section::default() }]
}

/// `text` cut in front of each line that starts with `[[`, with each piece's first line.
fn pieces(text: &str) -> impl Iterator<Item = (&str, u32)> {
    let mut rest = text;
    let mut line = 1;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // The first line belongs to this piece whatever it is.
        let mut end = 0;
        for (index, text_line) in rest.split_inclusive('\n').enumerate() {
            if index > 0 && text_line.trim_start().starts_with("[[") {
                break;
            }
            end += text_line.len();
        }
        let (piece, after) = rest.split_at_checked(end)?;
        let first = line;
        line += newlines(piece);
        rest = after;
        Some((piece, first))
    })
}

/// The sections of one piece of text that starts on line `line`.
fn parse_piece<'s>(text: &'s str, line: u32, tokens_left: &mut usize) -> Vec<Section<'s>> {
    let source = Source::new(text);
    // Most tokens are longer than two characters; a vector that grows costs more than the rest.
    let mut tokens = Vec::with_capacity((text.len() / 2).min(*tokens_left));
    tokens.extend(source.lex().take(*tokens_left));
    *tokens_left = tokens_left.saturating_sub(tokens.len());
    if *tokens_left == 0 {
        return unreadable(line, format!("the text has more than {MAX_TOKENS} words and signs"));
    }
    let mut collector = Collector::new(source, line);
    let mut errors = FirstErrors::default();
    parse_document(&tokens, &mut collector, &mut errors);
    collector.finish(errors)
}

/// The parser's complaints, up to a number.
#[derive(Default)]
struct FirstErrors(heapless::Vec<ParseError, MAX_PROBLEMS>);

impl ErrorSink for FirstErrors {
    fn report_error(&mut self, error: ParseError) {
        // One more than fits adds nothing to what is already wrong.
        let _full = self.0.push(error);
    }
}

/// Gathers sections from the parser's events.
struct Collector<'s> {
    source: Source<'s>,
    /// Where the text starts, and up to where lines have been counted.
    first_line: u32,
    counted: Span,
    line: u32,
    sections: Vec<Section<'s>>,
    /// Offset of each section's header.
    starts: Vec<usize>,
    place: Place<'s>,
}

/// What the next event belongs to.
enum Place<'s> {
    /// Nothing: a key or a header may come.
    Idle,
    /// The name in a header.
    Header,
    /// A value for this key.
    Key(u32, Cow<'s, str>),
    /// An element of the array for this key.
    Array(u32, Cow<'s, str>, Vec<Value<'s>>),
}

impl<'s> Collector<'s> {
    fn new(source: Source<'s>, first_line: u32) -> Self {
        Self {
            source,
            first_line,
            counted: Span::default(),
            line: first_line,
            sections: alloc::vec![Section { line: first_line, ..Section::default() }],
            starts: alloc::vec![0],
            place: Place::Idle,
        }
    }

    /// The sections, with the parser's errors put where they belong.
    fn finish(mut self, errors: FirstErrors) -> Vec<Section<'s>> {
        for error in errors.0 {
            let span = error.context().or(error.unexpected()).unwrap_or_default();
            let index = self.starts.partition_point(|&start| start <= span.start()).saturating_sub(1);
            if let Some(section) = self.sections.get_mut(index) {
                let Problem { line, message } = syntax_problem(self.source, self.first_line, &error);
                note(&mut section.problems, line, message);
            }
        }
        self.sections
    }

    /// The line of `span`. Events come in the order of the text, so each newline is
    /// counted once.
    fn line_of(&mut self, span: Span) -> u32 {
        let between = Span::new_unchecked(self.counted.start(), span.start());
        if let Some(text) = self.source.get(between) {
            self.line += newlines(text.as_str());
            self.counted = span.before();
        }
        self.line
    }

    fn section(&mut self) -> &mut Section<'s> {
        self.sections.last_mut().expect("`new` puts one in and none is removed")
    }

    fn problem(&mut self, span: Span, message: String) {
        let line = self.line_of(span);
        note(&mut self.section().problems, line, message);
    }

    fn raw(&self, span: Span, encoding: Option<Encoding>) -> toml_parser::Raw<'s> {
        let text = self.source.input().get(span.start()..span.end()).unwrap_or_default();
        toml_parser::Raw::new_unchecked(text, encoding, span)
    }

    fn open_section(&mut self, span: Span) {
        let line = self.line_of(span);
        self.starts.push(span.start());
        self.sections.push(Section { line, name: Some(Cow::Borrowed("")), ..Section::default() });
        self.place = Place::Header;
    }

    /// A complete value: to the array being read, or to its key.
    fn value(&mut self, value: Value<'s>) {
        match core::mem::replace(&mut self.place, Place::Idle) {
            Place::Key(line, key) => self.section().pairs.push(Pair { line, key, value }),
            Place::Array(line, key, mut values) => {
                values.push(value);
                self.place = Place::Array(line, key, values);
            }
            // A value without a key comes with a syntax error of its own.
            Place::Idle | Place::Header => {}
        }
    }
}

impl EventReceiver for Collector<'_> {
    fn std_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.open_section(span);
        self.problem(span, String::from("a VM starts with `[[vm]]`, in double brackets"));
    }

    fn array_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.open_section(span);
    }

    fn std_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.place = Place::Idle;
    }

    fn array_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.place = Place::Idle;
    }

    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, errors: &mut dyn ErrorSink) {
        let line = self.line_of(span);
        let mut key = Cow::Borrowed("");
        self.raw(span, encoding).decode_key(&mut key, errors);
        match self.place {
            Place::Header => self.section().name = Some(key),
            // A key that never got its value, or an array never closed, was reported.
            Place::Idle | Place::Key(..) | Place::Array(..) => self.place = Place::Key(line, key),
        }
    }

    fn key_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.problem(span, String::from("a name with a dot in it: `vms.toml` has no tables inside tables"));
    }

    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, errors: &mut dyn ErrorSink) {
        let mut text = Cow::Borrowed("");
        let value = match self.raw(span, encoding).decode_scalar(&mut text, errors) {
            ScalarKind::String => Value::String(text),
            ScalarKind::Boolean(value) => Value::Boolean(value),
            ScalarKind::Integer(radix) => match integer(&text, radix) {
                Some(value) => Value::Integer(value),
                None => Value::Other("number of more than 64 bits"),
            },
            ScalarKind::DateTime => Value::Other("date"),
            ScalarKind::Float => Value::Other("number with a fraction"),
        };
        self.value(value);
    }

    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        match core::mem::replace(&mut self.place, Place::Idle) {
            Place::Key(line, key) => {
                self.place = Place::Array(line, key, Vec::new());
                true
            }
            // Returning `false` keeps the parser from descending: its stack stays flat.
            _ => {
                self.problem(span, String::from("an array inside an array: `vms.toml` has no use for that"));
                false
            }
        }
    }

    fn array_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        // The end of a refused inner array comes here too; its section is lost already.
        if let Place::Array(line, key, values) = core::mem::replace(&mut self.place, Place::Idle) {
            self.section().pairs.push(Pair { line, key, value: Value::Array(values) });
        }
    }

    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.problem(span, String::from("a table in braces: write its keys on lines of their own"));
        false
    }

    fn comment(&mut self, span: Span, errors: &mut dyn ErrorSink) {
        self.raw(span, None).decode_comment(errors);
    }

    fn newline(&mut self, span: Span, errors: &mut dyn ErrorSink) {
        self.raw(span, None).decode_newline(errors);
    }
}

/// The value of an integer's digits.
fn integer(digits: &str, radix: IntegerRadix) -> Option<i64> {
    i64::from_str_radix(digits, radix.value()).ok()
}

/// How many lines end in `text`; more than a `u32` holds can't be, see [`MAX_TEXT`].
fn newlines(text: &str) -> u32 {
    text.bytes().map(|byte| u32::from(byte == b'\n')).sum()
}

/// A syntax error in words, with the line it is on as the user wrote it.
fn syntax_problem(source: Source<'_>, first_line: u32, error: &ParseError) -> Problem {
    let at = error.unexpected().or(error.context()).unwrap_or_default().start();
    let text = source.input();
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let start = before.rsplit('\n').next().unwrap_or_default();
    let end = after.split('\n').next().unwrap_or_default();

    let line_start = at.saturating_sub(start.len());
    let whole_line = text.get(line_start..at.saturating_add(end.len())).unwrap_or_default();

    let mut message = format!("{} in {}", error.description(), Shown(whole_line.trim()));
    for (index, expected) in error.expected().unwrap_or_default().iter().enumerate() {
        message.push_str(if index == 0 { ", expected " } else { " or " });
        match expected {
            Expected::Literal("\n") => message.push_str("the end of the line"),
            Expected::Literal(literal) => message.push_str(&format!("`{literal}`")),
            Expected::Description(description) => message.push_str(description),
            _ => message.push_str("something else"),
        }
    }
    Problem { line: first_line + newlines(before), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// All problems of a text, each as it is printed.
    fn problems(text: &str) -> Vec<String> {
        parse(text).iter().flat_map(|section| &section.problems).map(ToString::to_string).collect()
    }

    fn last_value(text: &str) -> Value<'_> {
        parse(text).pop().and_then(|mut section| section.pairs.pop()).expect("a pair").value
    }

    #[test]
    fn values_of_every_kind_are_read() {
        assert_eq!(last_value("a = \"x\\ty\""), Value::String("x\ty".into()));
        assert_eq!(last_value("a = 'x\\ty'"), Value::String("x\\ty".into()));
        assert_eq!(last_value("a = 1_000"), Value::Integer(1000));
        assert_eq!(last_value("a = 0x1F"), Value::Integer(31));
        assert_eq!(last_value("a = -5"), Value::Integer(-5));
        assert_eq!(last_value("a = true"), Value::Boolean(true));
        assert_eq!(
            last_value("a = [1, \"b\",\n 3]"),
            Value::Array(alloc::vec![Value::Integer(1), Value::String("b".into()), Value::Integer(3)])
        );
        assert_eq!(last_value("a = 99999999999999999999"), Value::Other("number of more than 64 bits"));
        assert_eq!(last_value("a = 1.5"), Value::Other("number with a fraction"));
    }

    #[test]
    fn sections_and_keys_know_their_lines() {
        let sections = parse("# head\n[[vm]]\n\na = \"\"\"\nx\n\"\"\"\nb = [\n2] # two\n[[vm]]\nc = 3");
        let lines: Vec<_> = sections.iter().map(|section| section.line).collect();
        assert_eq!(lines, [1, 2, 9]);
        let keys: Vec<_> =
            sections.iter().flat_map(|section| &section.pairs).map(|pair| (pair.line, &*pair.key)).collect();
        assert_eq!(keys, [(4, "a"), (7, "b"), (10, "c")]);
    }

    #[test]
    fn syntax_error_shows_line_and_text() {
        assert_eq!(
            problems("[[vm]]\nname = \"a\ncpus = 2\n"),
            ["vms.toml line 2: invalid basic string in `name = \"a`, expected `\"`"]
        );
    }

    #[test]
    fn single_brackets_are_corrected() {
        assert_eq!(problems("[vm]\n"), ["vms.toml line 1: a VM starts with `[[vm]]`, in double brackets"]);
    }

    #[test]
    fn dotted_keys_and_inline_tables_are_refused() {
        assert_eq!(problems("a.b = 1").len(), 1);
        assert_eq!(problems("[[a.b]]").len(), 1);
        assert_eq!(problems("a = { b = 1 }").len(), 1);
        assert_eq!(problems("a = [[1]]").len(), 1);
    }

    #[test]
    fn unclosed_array_does_not_swallow_the_next_section() {
        let sections = parse("[[vm]]\na = [1\n[[vm]]\nb = 2\n");
        let problems: Vec<_> =
            sections.iter().map(|section| (section.line, section.problems.len())).collect();
        assert_eq!(problems, [(1, 1), (3, 0)]);
        assert_eq!(sections[1].pairs.len(), 1);
    }

    #[test]
    fn error_in_a_late_section_counts_however_many_came_before() {
        let mut text = String::new();
        for _ in 0..20 {
            text.push_str("[[vm]]\na = \n");
        }
        assert!(parse(&text).iter().all(|section| section.problems.len() == 1));
    }

    #[test]
    fn deep_nesting_is_refused_on_a_small_stack() {
        let text = alloc::format!("a = {}", "[".repeat(4000));
        let parse_it = move || problems(&text).len();
        let thread = std::thread::Builder::new().stack_size(32 * 1024).spawn(parse_it).unwrap();
        assert!(thread.join().unwrap() > 0);
    }

    #[test]
    fn text_that_is_too_long_is_refused() {
        assert_eq!(problems(&"#".repeat(MAX_TEXT + 1)).len(), 1);
        assert_eq!(problems(&"a=1\n".repeat(MAX_TOKENS)).len(), 1);
    }

    /// Whether what we read is what the `toml` crate reads.
    fn same(value: &Value<'_>, other: &::toml::Value) -> bool {
        match (value, other) {
            (Value::String(a), ::toml::Value::String(b)) => a == b,
            (Value::Integer(a), ::toml::Value::Integer(b)) => a == b,
            (Value::Boolean(a), ::toml::Value::Boolean(b)) => a == b,
            (Value::Array(a), ::toml::Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Other(_), ::toml::Value::Float(_) | ::toml::Value::Datetime(_)) => true,
            _ => false,
        }
    }

    /// Text that is nearly right: a sample in which pieces were replaced.
    fn nearly_toml() -> impl Strategy<Value = String> {
        let fragments = prop::sample::select(alloc::vec![
            "[[vm]]\n",
            "[vm]\n",
            "a = 1\n",
            "b = \"x\"\n",
            "c = 'y'\n",
            "d = [1, 2]\n",
            "e = [\"a\",]\n",
            "f = true\n",
            "# z\n",
            "\n",
            "=",
            "[",
            "]",
            "\"",
            "'",
            "\"\"\"",
            "{",
            "}",
            ",",
            ".",
            "\\",
            "\\u00e9",
            "0x",
            "-",
            "1979-05-27",
            "1e3",
            " ",
            "\t",
            "\r\n",
            "\r",
            "\u{7f}",
            "é",
            "g-h = 0o17\n",
            "\"i\" = 0b1\n",
            "j",
            "inf",
            "+1",
            "01",
        ]);
        prop::collection::vec(fragments, 0..16).prop_map(|fragments| fragments.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn accepted_text_means_the_same_to_another_parser(text in nearly_toml()) {
            let sections = parse(&text);
            let good = sections.iter().all(|section| {
                let mut keys: Vec<_> = section.pairs.iter().map(|pair| &pair.key).collect();
                keys.sort();
                keys.dedup();
                section.problems.is_empty() && keys.len() == section.pairs.len()
            });
            // `manifest` refuses a head with keys, any section but `vm`, and double keys.
            let good = good && sections.iter().all(|section| match section.name.as_deref() {
                Some(name) => name == "vm",
                None => section.pairs.is_empty(),
            });
            if good {
                let table: ::toml::Table = ::toml::from_str(&text).expect("accepted text is TOML");
                let vms = table.get("vm").map(|vms| vms.as_array().expect("array").clone()).unwrap_or_default();
                let named: Vec<_> = sections.iter().filter(|section| section.name.is_some()).collect();
                prop_assert_eq!(vms.len(), named.len());
                for (vm, section) in vms.iter().zip(named) {
                    let vm = vm.as_table().expect("table");
                    prop_assert_eq!(vm.len(), section.pairs.len());
                    for pair in &section.pairs {
                        prop_assert!(vm.get(&*pair.key).is_some_and(|other| same(&pair.value, other)), "{:?}", pair);
                    }
                }
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            parse(&text);
        }
    }
}

//! Reads `.proto` files: as much of the language as those in `api/proto` use.
//!
//! Pure. Messages, enumerations, maps, defaults; names are looked for from the innermost scope outwards, as protobuf
//! compilers do. What is not understood is noted in [`Schema::problems`].

use super::{EnumType, Field, Kind, Label, MessageType, Schema};

/// A field whose type is known by name only.
struct Loose {
    message: usize,
    scope: String,
    type_name: &'static str,
    field: Field,
}

#[derive(Default)]
struct Parser {
    tokens: Vec<&'static str>,
    at: usize,
    schema: Schema,
    loose: Vec<Loose>,
}

/// The schema that these files describe together.
pub(super) fn parse(files: &[&'static str]) -> Schema {
    let mut parser = Parser::default();
    for file in files {
        parser.tokens = tokens(file);
        parser.at = 0;
        parser.file();
    }
    parser.resolve()
}

/// Words, numbers, texts in their quotation marks, and single signs.
fn tokens(text: &'static str) -> Vec<&'static str> {
    let mut out = Vec::new();
    for line in text.lines() {
        let line = line.split_once("//").map_or(line, |(code, _)| code);
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
            let length = if first == '"' {
                rest[1..].find('"').map_or(rest.len(), |end| end + 2)
            } else if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            out.push(&rest[..length]);
            rest = rest[length..].trim_start();
        }
    }
    out
}

impl Parser {
    fn next(&mut self) -> Option<&'static str> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    fn skip(&mut self, wanted: &str) -> bool {
        let found = self
            .tokens
            .get(self.at)
            .is_some_and(|token| *token == wanted);
        self.at += usize::from(found);
        found
    }

    fn past(&mut self, end: &str) {
        while self.next().is_some_and(|token| token != end) {}
    }

    fn problem(&mut self, what: &str) {
        let near = self
            .tokens
            .get(self.at.saturating_sub(1))
            .unwrap_or(&"the end");
        self.schema.problems.push(format!("{what} near {near}"));
    }

    fn file(&mut self) {
        let mut package = "";
        while let Some(token) = self.next() {
            match token {
                "package" => {
                    package = self.next().unwrap_or_default();
                    self.past(";");
                }
                "message" => self.message(package),
                "enum" => self.names(package),
                "syntax" | "import" | "option" => self.past(";"),
                ";" => {}
                _ => {
                    self.problem("something unknown at the top");
                    return;
                }
            }
        }
    }

    fn message(&mut self, scope: &str) {
        let name = format!("{scope}.{}", self.next().unwrap_or_default());
        let message = self.schema.messages.len();
        self.schema.messages.push(MessageType {
            name: name.clone(),
            fields: Vec::new(),
        });
        let kind = Kind::Message(message);
        self.schema.by_name.insert(name.clone(), kind);
        if !self.skip("{") {
            self.problem("a message without a body");
            return;
        }
        while let Some(token) = self.next() {
            match token {
                "}" => return,
                "message" => self.message(&name),
                "enum" => self.names(&name),
                "option" | "reserved" | "extensions" => self.past(";"),
                "map" => {
                    self.past(",");
                    let type_name = self.next().unwrap_or_default();
                    self.past(">");
                    self.field(message, &name, Label::Map, type_name);
                }
                "optional" | "required" | "repeated" => {
                    let label = match token {
                        "required" => Label::Required,
                        "repeated" => Label::Repeated,
                        _ => Label::Optional,
                    };
                    let type_name = self.next().unwrap_or_default();
                    self.field(message, &name, label, type_name);
                }
                _ => {
                    self.problem("something unknown in a message");
                    return;
                }
            }
        }
    }

    /// From the name of the field on.
    fn field(&mut self, message: usize, scope: &str, label: Label, type_name: &'static str) {
        let name = self.next().unwrap_or_default();
        if !self.skip("=") {
            self.problem("a field without a number");
        }
        let number = self.next().and_then(|token| token.parse().ok());
        let (mut default, mut deprecated) = (None, false);
        while let Some(token) = self.next() {
            match token {
                ";" => break,
                "default" => {
                    self.past("=");
                    default = self.next().map(|text| text.trim_matches('"'));
                }
                "deprecated" => {
                    self.past("=");
                    deprecated = self.next() == Some("true");
                }
                _ => {}
            }
        }
        let Some(number) = number else {
            self.problem("a field without a number");
            return;
        };
        self.loose.push(Loose {
            message,
            scope: scope.to_owned(),
            type_name,
            field: Field {
                name,
                number,
                label,
                kind: Kind::Bool,
                default,
                deprecated,
            },
        });
    }

    fn names(&mut self, scope: &str) {
        let name = format!("{scope}.{}", self.next().unwrap_or_default());
        let mut values = Vec::new();
        self.past("{");
        while let Some(token) = self.next() {
            match token {
                "}" => break,
                "option" => self.past(";"),
                value => {
                    self.past("=");
                    match self.next().and_then(|number| number.parse().ok()) {
                        Some(number) => values.push((value, number)),
                        None => self.problem("a value without a number"),
                    }
                    self.past(";");
                }
            }
        }
        let kind = Kind::Enum(self.schema.enums.len());
        self.schema.enums.push(EnumType {
            name: name.clone(),
            values,
        });
        self.schema.by_name.insert(name, kind);
    }

    /// Finds the types that were only named.
    fn resolve(mut self) -> Schema {
        for mut loose in std::mem::take(&mut self.loose) {
            match self.find(&loose.scope, loose.type_name) {
                Some(kind) => {
                    loose.field.kind = kind;
                    self.schema.messages[loose.message].fields.push(loose.field);
                }
                None => {
                    let problem = format!("{}: no type {}", loose.scope, loose.type_name);
                    self.schema.problems.push(problem);
                }
            }
        }
        for message in &mut self.schema.messages {
            message.fields.sort_by_key(|field| field.number);
        }
        self.schema
    }

    fn find(&self, scope: &str, name: &str) -> Option<Kind> {
        match name {
            "double" => return Some(Kind::Double),
            "float" => return Some(Kind::Float),
            "int32" => return Some(Kind::Int32),
            "int64" => return Some(Kind::Int64),
            "uint32" => return Some(Kind::Uint32),
            "uint64" => return Some(Kind::Uint64),
            "bool" => return Some(Kind::Bool),
            "string" => return Some(Kind::Text),
            "bytes" => return Some(Kind::Bytes),
            _ => {}
        }
        let mut scope = scope;
        loop {
            if let Some(kind) = self.schema.by_name.get(&format!("{scope}.{name}")) {
                return Some(*kind);
            }
            match scope.rsplit_once('.') {
                Some((outer, _)) => scope = outer,
                None => return self.schema.by_name.get(name).copied(),
            }
        }
    }
}

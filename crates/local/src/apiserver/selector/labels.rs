//! The grammar of label selectors, with Kubernetes' words for what is wrong.

use serde_json::Value;

use crate::machinery::words::{Unit, key_problems, value_problems};

/// One condition on the labels of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

impl Requirement {
    pub(super) fn holds(&self, labels: Option<&Value>) -> bool {
        let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        let number = |key: &str| label(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
            Self::Greater(key, than) => number(key).is_some_and(|v| v > *than),
            Self::Less(key, than) => number(key).is_some_and(|v| v < *than),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Unknown,
    End,
    Close,
    Open,
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Word,
}

const SYMBOLS: [(&str, Token); 9] = [
    ("==", Token::Equals),
    ("!=", Token::NotEquals),
    ("=", Token::Equals),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    (",", Token::Comma),
    (">", Token::Greater),
    ("<", Token::Less),
];

fn tokens(mut text: &str) -> Vec<(Token, &str)> {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches(is_space);
        let symbol = SYMBOLS.iter().find(|(symbol, _)| text.starts_with(symbol));
        let (token, length) = match symbol {
            _ if text.is_empty() => {
                found.push((Token::End, ""));
                return found;
            }
            Some((symbol, token)) => (*token, symbol.len()),
            None => {
                let end = text.find(|c: char| is_space(c) || "=!(),><".contains(c));
                let length = end.unwrap_or(text.len());
                let token = match &text[..length] {
                    "in" => Token::In,
                    "notin" => Token::NotIn,
                    "" => Token::Unknown,
                    _ => Token::Word,
                };
                (token, length.max(1))
            }
        };
        found.push((token, &text[..length]));
        text = &text[length..];
    }
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next token; `in` and `notin` are words where no operator can stand.
    fn peek(&self) -> (Token, &'a str) {
        match self.operator() {
            (Token::In | Token::NotIn, text) => (Token::Word, text),
            other => other,
        }
    }

    fn operator(&self) -> (Token, &'a str) {
        self.tokens.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    fn take(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take();
        let absent = token == Token::Not;
        if absent {
            (token, key) = self.take();
        }
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(key)?;
        let key_of = || key.to_owned();
        if absent {
            return Ok(Requirement::Absent(key_of()));
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(Requirement::Exists(key_of()));
        }
        let (operator, text) = self.operator();
        self.at += 1;
        let values = match operator {
            Token::In | Token::NotIn => self.set()?,
            Token::Equals | Token::NotEquals | Token::Greater | Token::Less => vec![self.value()?],
            _ => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        check_values(key, operator, &values)?;
        let number = || values[0].parse().unwrap_or_default();
        Ok(match operator {
            Token::NotIn | Token::NotEquals => Requirement::NotIn(key_of(), values),
            Token::Greater => Requirement::Greater(key_of(), number()),
            Token::Less => Requirement::Less(key_of(), number()),
            _ => Requirement::In(key_of(), values),
        })
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Word, text) => Ok(text.to_owned()),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            (Token::Open, _) => {}
            (_, text) => return Err(format!("found '{text}' expected: '('")),
        }
        let mut values = std::collections::BTreeSet::new();
        match self.peek() {
            (Token::Word | Token::Comma, _) => {}
            (Token::Close, _) => {
                self.take();
                return Ok(vec![String::new()]);
            }
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.take() {
                (Token::Word, text) => {
                    values.insert(text.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    let next = self.peek().0;
                    if values.is_empty() || matches!(next, Token::Close | Token::Comma) {
                        values.insert(String::new());
                    }
                    if next == Token::Close {
                        break;
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
        self.take();
        Ok(values.into_iter().collect())
    }
}

/// Reads `a=b,c in (d,e),!f` and the like.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
    };
    let mut found = Vec::new();
    loop {
        match parser.peek() {
            (Token::Word | Token::Not, _) => {
                let requirement = parser.requirement();
                found.push(requirement.map_err(|e| format!("unable to parse requirement: {e}"))?);
                match parser.take() {
                    (Token::End, _) => return Ok(found),
                    (Token::Comma, _) => {
                        let (next, text) = parser.peek();
                        if !matches!(next, Token::Word | Token::Not) {
                            return Err(format!("found '{text}', expected: identifier after ','"));
                        }
                    }
                    (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                }
            }
            (Token::End, _) => return Ok(found),
            (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let wrong = key_problems(key, Unit::Bytes);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; ")))
    }
}

fn check_values(key: &str, operator: Token, values: &[String]) -> Result<(), String> {
    let mut wrong = Vec::new();
    if matches!(operator, Token::Greater | Token::Less) && values[0].parse::<i64>().is_err() {
        let why = "for 'Gt', 'Lt' operators, the value must be an integer";
        wrong.push(format!("values[0]: Invalid value: {:?}: {why}", values[0]));
    }
    for (i, value) in values.iter().enumerate() {
        let errors = value_problems(value, Unit::Bytes);
        if !errors.is_empty() {
            wrong.push(format!(
                "values[{i}][{key}]: Invalid value: {value:?}: {}",
                errors.join("; ")
            ));
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

//! Words of the text form with their line numbers: split at white space, braces and brackets on their own,
//! everything from `#` to the end of a line left out.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token<'a> {
    pub line: usize,
    pub word: &'a str,
}

/// A reader over a text, one word ahead.
pub(super) struct Tokens<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    rest: &'a str,
    line: usize,
    peeked: Option<Token<'a>>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Tokens<'a> {
        Tokens { lines: text.lines().enumerate(), rest: "", line: 1, peeked: None }
    }

    /// The line of the last word read.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn peek(&mut self) -> Option<Token<'a>> {
        if self.peeked.is_none() {
            self.peeked = self.read();
        }
        self.peeked
    }

    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek()?;
        self.peeked = None;
        self.line = token.line;
        Some(token)
    }

    fn read(&mut self) -> Option<Token<'a>> {
        let mut line = self.line;
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.is_empty() {
                break;
            }
            let (at, text) = self.lines.next()?;
            line = at + 1;
            self.rest = text.split('#').next().unwrap_or("");
            self.line = line;
        }
        let lone = |c: char| matches!(c, '{' | '}' | '[' | ']');
        let end = match self.rest.find(|c: char| c.is_whitespace() || lone(c)) {
            Some(0) => 1,
            Some(end) => end,
            None => self.rest.len(),
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Token { line, word })
    }
}

//! Bounds how deep a template's syntax tree can be, before it is parsed.
//!
//! minijinja bounds nested brackets and blocks. It does not bound what nests without either: `- - - 1`, `a + b + c`, `a.b.c`,
//! `a | f | g`, `x if y else z` and `elif` each put a level on the tree that its parser, its code generator and the release of
//! the tree descend by recursion, and a stack overflow ends the whole process.

use minijinja::machinery::{Token, Tokenizer};
use minijinja::syntax::SyntaxConfig;

/// Most levels of one expression and of the `elif`s around it, together; measured to fit a thread of 2 MiB several times over.
const MAX_LEVELS: usize = 400;

/// An expression, or a bracket within one, that is open while tokens are counted.
#[derive(Clone, Copy)]
struct Open {
    /// Levels around it.
    start: usize,
    /// Most levels at the end of any of its items.
    deepest: usize,
}

/// Refuses a template whose tree may be too deep, with the line and the reason. Counts too many levels rather than too few; a
/// template that does not parse is the parser's to refuse, at the place up to which it was counted here.
pub(crate) fn check(source: &str, syntax: &SyntaxConfig) -> Result<(), (usize, String)> {
    let mut tokens = Tokenizer::new(source, "", false, syntax.clone());
    // The `elif`s of each open `if`.
    let mut ifs: Vec<usize> = Vec::new();
    let (mut elifs, mut levels, mut open, mut is_first) = (0, 0, Vec::new(), false);
    while let Ok(Some((token, span))) = tokens.next_token() {
        match token {
            Token::VariableStart | Token::BlockStart => {
                levels = elifs;
                open = vec![Open { start: levels, deepest: levels }];
                is_first = true;
                continue;
            }
            Token::Ident("if") if is_first => ifs.push(0),
            Token::Ident("elif") if is_first => {
                elifs += 1;
                levels += 1;
                if let Some(count) = ifs.last_mut() {
                    *count += 1;
                }
            }
            Token::Ident("endif") if is_first => elifs -= ifs.pop().unwrap_or(0),
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                levels += 1;
                open.push(Open { start: levels, deepest: levels });
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose => {
                levels = open.pop().map_or(levels, |closed| levels.max(closed.deepest));
            }
            Token::Comma | Token::Colon => {
                if let Some(around) = open.last_mut() {
                    around.deepest = around.deepest.max(levels);
                    levels = around.start;
                }
            }
            Token::Ident("not" | "and" | "or" | "if" | "else" | "is" | "in")
            | Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::FloorDiv
            | Token::Pow
            | Token::Mod
            | Token::Dot
            | Token::Tilde
            | Token::Pipe
            | Token::Eq
            | Token::Ne
            | Token::Gt
            | Token::Gte
            | Token::Lt
            | Token::Lte => levels += 1,
            _ => {}
        }
        is_first = false;
        if levels > MAX_LEVELS {
            let reason =
                format!("operators, attributes, filters, brackets and `elif`s are more than {MAX_LEVELS} deep");
            return Err((span.start_line.into(), reason));
        }
    }
    Ok(())
}

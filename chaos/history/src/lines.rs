//! A history as text: one operation a line, as JSON.

use crate::Operation;
use std::io::{BufRead, Write};

/// A line is no operation.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the history cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("line {line} of the history is no operation: {source}")]
    Line { line: usize, source: serde_json::Error },
}

pub fn write(operations: &[Operation], to: &mut dyn Write) -> std::io::Result<()> {
    for operation in operations {
        serde_json::to_writer(&mut *to, operation)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

pub fn read(from: impl BufRead) -> Result<Vec<Operation>, ReadError> {
    let mut operations = vec![];
    for (at, text) in from.lines().enumerate() {
        let operation = serde_json::from_str(&text?).map_err(|source| ReadError::Line { line: at + 1, source })?;
        operations.push(operation);
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Answered, Call, Name, Seen};
    use farshore_types::{ErrorKind, RenameMode};

    #[test]
    fn a_history_comes_back_as_it_was_written() {
        let seen = Seen { ino: 1 << 50, nlink: 2, mode: 0o644, uid: 7, size: 1 << 40 };
        let answers = [
            None,
            Some(Answer::Done),
            Some(Answer::Inode(seen)),
            Some(Answer::Names(vec![(Name(2), seen)])),
            Some(Answer::Refused(ErrorKind::Exists)),
            Some(Answer::Strange("?".to_owned())),
        ];
        let call = Call::Rename { from: Name(0), to: Name(1), mode: RenameMode::Exchange };
        let operation = |answer: Option<Answer>| Operation {
            client: 3,
            group: 4,
            called: 5,
            call: call.clone(),
            answered: answer.map(|answer| Answered { at: 6, answer, index: Some(7) }),
        };
        let history: Vec<Operation> = answers.into_iter().map(operation).collect();
        let mut text = vec![];
        write(&history, &mut text).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), history.len());
        assert_eq!(read(&text[..]).unwrap(), history);
        assert!(matches!(read(&b"{}\n"[..]), Err(ReadError::Line { line: 1, .. })));
    }
}

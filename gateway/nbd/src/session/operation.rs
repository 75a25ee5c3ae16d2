//! A request being carried out: the export's future, and what is needed to answer when it completes.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::budget::Charge;
use crate::export::{Export, ExportFuture, Extent, Failure, Segment};
use crate::protocol::Errno;
use crate::protocol::reply::ReplyTo;
use crate::protocol::request::Command;

/// The memory a request accounts for, until its reply was sent.
pub(crate) type Held = Rc<Charge>;

/// A request whose answer is known.
pub(crate) struct Completion {
    pub(crate) to: ReplyTo,
    pub(crate) answer: Answer,
    pub(crate) held: Held,
}

pub(crate) enum Answer {
    Done(Result<(), Failure>),
    Read { result: Result<Vec<Segment>, Failure>, offset: u64, length: u32, dont_fragment: bool },
    BlockStatus { result: Result<Vec<Extent>, Failure>, length: u64, one: bool },
}

/// A request in flight. Completes once.
pub(crate) struct Operation {
    to: ReplyTo,
    held: Held,
    work: Work,
}

enum Work {
    Plain(ExportFuture<'static, Result<(), Failure>>),
    Read {
        future: ExportFuture<'static, Result<Vec<Segment>, Failure>>,
        offset: u64,
        length: u32,
        dont_fragment: bool,
    },
    BlockStatus {
        future: ExportFuture<'static, Result<Vec<Extent>, Failure>>,
        length: u64,
        one: bool,
    },
}

/// What [`start`] made of a command.
pub(crate) enum Started {
    Running(Operation),
    Completed(Completion),
}

/// Hands a command to the export. `payload` is the data of a write.
pub(crate) fn start(
    export: &Rc<dyn Export>,
    command: Command,
    payload: Bytes,
    to: ReplyTo,
    held: Held,
) -> Started {
    let work = match begin(export, command, payload) {
        Ok(work) => work,
        Err(answer) => return Started::Completed(Completion { to, answer, held }),
    };
    Started::Running(Operation { to, held, work })
}

fn begin(export: &Rc<dyn Export>, command: Command, payload: Bytes) -> Result<Work, Answer> {
    let export = Rc::clone(export);
    let nothing = Answer::Done(Ok(()));
    let future = match command {
        Command::Read { offset, length: 0, dont_fragment } => {
            return Err(Answer::Read { result: Ok(Vec::new()), offset, length: 0, dont_fragment });
        }
        Command::Read { offset, length, dont_fragment } => {
            return Ok(Work::Read { future: export.read(offset, length), offset, length, dont_fragment });
        }
        Command::BlockStatus { offset, length, one } => {
            return Ok(Work::BlockStatus { future: export.block_status(offset, length), length, one });
        }
        Command::Write { length: 0, .. }
        | Command::Trim { length: 0, .. }
        | Command::Cache { length: 0, .. }
        | Command::WriteZeroes { length: 0, .. }
        | Command::Disconnect => return Err(nothing),
        Command::WriteZeroes { no_hole, fast: true, .. } if !export.zeroes_fast(no_hole) => {
            let failure = Failure::new(Errno::NotSupported, "zeroing would not be faster than writing");
            return Err(Answer::Done(Err(failure)));
        }
        Command::Write { offset, fua, .. } => export.write(offset, payload, fua),
        Command::Flush => export.flush(),
        Command::Trim { offset, length, fua } => export.trim(offset, length, fua),
        Command::Cache { offset, length } => export.cache(offset, length),
        Command::WriteZeroes { offset, length, no_hole, fua, .. } => {
            export.write_zeroes(offset, length, no_hole, fua)
        }
    };
    Ok(Work::Plain(future))
}

impl Future for Operation {
    type Output = Completion;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completion> {
        let answer = match &mut self.work {
            Work::Plain(future) => Answer::Done(ready!(future.as_mut().poll(cx))),
            Work::Read { future, offset, length, dont_fragment } => Answer::Read {
                result: ready!(future.as_mut().poll(cx)),
                offset: *offset,
                length: *length,
                dont_fragment: *dont_fragment,
            },
            Work::BlockStatus { future, length, one } => {
                Answer::BlockStatus { result: ready!(future.as_mut().poll(cx)), length: *length, one: *one }
            }
        };
        Poll::Ready(Completion { to: self.to, answer, held: Rc::clone(&self.held) })
    }
}

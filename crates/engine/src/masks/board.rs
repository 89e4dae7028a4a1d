use crate::error::EngineError;
use crate::masks::rules::{Cancel, Matching};
use mlx_serving_device::{Buffer, Patience, Point};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Masks of one step, and the point at which none of them is outstanding.
///
/// Every operation holds the one lock from its beginning to its end, so that what several threads do is some sequence of operations.
pub(crate) struct Board {
    /// u32 `[rows][words]`, the host's to write until the point is signaled.
    masks: Buffer,
    words: usize,
    point: Point,
    rows: Mutex<Rows>,
    /// Signaled with the point.
    settled: Condvar,
}

struct Rows {
    rows: Vec<Row>,
    /// Rows that are not settled.
    open: usize,
}

enum Row {
    /// A mask is to come. Work on it has begun if there is something to cancel.
    Open(Option<Cancel>),
    /// Its mask is written, or none will be; the outcome, until the sequence takes it.
    Settled(Option<Result<Made, Fault>>),
}

/// Results that come with a mask.
#[derive(Default)]
pub(crate) struct Made {
    /// State of the answer before the masked token.
    pub matcher: Option<Box<dyn Matching>>,
    /// Tokens that must come, the masked one first.
    pub forced: Vec<u32>,
    /// The mask allows nothing but the end.
    pub only_ends: bool,
}

/// Reason for which a row has no mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The engine has waited for so long.
    Late(Duration),
    /// Its maker panicked, or there was none.
    Died,
    /// The grammar cannot go on.
    Stuck(String),
    /// Nobody wants it any more.
    Dropped,
}

impl From<Fault> for EngineError {
    fn from(fault: Fault) -> Self {
        EngineError::Grammar(match fault {
            Fault::Late(limit) => format!(
                "the tokens that it allows next were not known within {limit:?}; simplify the schema or the grammar, or try again when the \
                 machine is less busy"
            ),
            Fault::Died => "the thread that works out which tokens it allows next has failed, which is a fault of this program; try again, \
                            and report it with the schema or the grammar"
                .into(),
            Fault::Stuck(why) => format!("{why}; change the schema or the grammar"),
            Fault::Dropped => "the step was given up".into(),
        })
    }
}

/// A sequence's right to a row's mask. Its end settles the row.
pub(crate) struct Order {
    board: Arc<Board>,
    row: usize,
}

/// A job's duty to make a row's mask. Its end settles the row.
pub(crate) struct Duty {
    board: Arc<Board>,
    row: usize,
}

impl Board {
    /// A board whose rows are all open, and an order for each. `masks` has room for so many rows; `point` is signaled for this board
    /// only, or for later ones of the same memory.
    pub(crate) fn new(masks: Buffer, words: usize, rows: usize, point: Point) -> (Arc<Self>, Vec<Order>) {
        let open = Rows { rows: (0..rows).map(|_| Row::Open(None)).collect(), open: rows };
        let board = Arc::new(Self { masks, words, point, rows: Mutex::new(open), settled: Condvar::new() });
        let orders = (0..rows).map(|row| Order { board: board.clone(), row }).collect();
        (board, orders)
    }

    /// Waits until every row is settled; those that are open after `limit` are too late. Returns how many were. Once the step has `ended`
    /// without them, none is wanted any more.
    pub(crate) fn wait(&self, limit: Duration, ended: impl Fn() -> bool) -> usize {
        let mut patience = Patience::new(limit);
        let mut rows = self.lock();
        while rows.open > 0 {
            if ended() {
                self.settle_all(rows, &Fault::Dropped);
                return 0;
            }
            let Some(slice) = patience.slice() else { return self.settle_all(rows, &Fault::Late(limit)) };
            rows = self.settled.wait_timeout(rows, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        0
    }

    /// Settles every row: nobody wants the step's results any more.
    pub(crate) fn abandon(&self) {
        self.settle_all(self.lock(), &Fault::Dropped);
    }

    fn settle_all(&self, mut rows: MutexGuard<'_, Rows>, fault: &Fault) -> usize {
        let mut stopped = Vec::new();
        for row in &mut rows.rows {
            if let Row::Open(cancel) = row {
                stopped.push(cancel.take());
                *row = Row::Settled(Some(Err(fault.clone())));
            }
        }
        self.close(&mut rows, stopped.len());
        drop(rows);
        let count = stopped.len();
        stopped.into_iter().flatten().for_each(|cancel| cancel());
        count
    }

    /// Settles one row, unless it is.
    fn settle(&self, row: usize, outcome: Result<(&[u32], Made), Fault>) {
        let mut rows = self.lock();
        let Some(Row::Open(cancel)) = rows.rows.get_mut(row) else { return };
        let stopped = cancel.take().filter(|_| matches!(outcome, Err(Fault::Dropped)));
        let outcome = outcome.and_then(|(mask, made)| {
            let at = 4 * (row * self.words) as u64;
            self.masks.write(at, mask).map(|()| made).map_err(|e| Fault::Stuck(e.to_string()))
        });
        rows.rows[row] = Row::Settled(Some(outcome));
        self.close(&mut rows, 1);
        drop(rows);
        stopped.into_iter().for_each(|cancel| cancel());
    }

    /// Counts rows as settled; with the last one the device may go on.
    fn close(&self, rows: &mut Rows, count: usize) {
        rows.open -= count;
        if count > 0 && rows.open == 0 {
            self.point.timeline.signal(self.point.value);
            self.settled.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// Duty to make its mask, for a job.
    pub(crate) fn duty(&self) -> Duty {
        Duty { board: self.board.clone(), row: self.row }
    }

    /// Settles the row with a mask that needs no job.
    pub(crate) fn fill(&self, mask: &[u32]) {
        self.board.settle(self.row, Ok((mask, Made::default())));
    }

    /// Words of a mask.
    pub(crate) fn words(&self) -> usize {
        self.board.words
    }

    /// The outcome, once the step has ended.
    pub(crate) fn take(self) -> Result<Made, Fault> {
        match self.board.lock().rows.get_mut(self.row) {
            Some(Row::Settled(outcome)) => outcome.take().unwrap_or(Err(Fault::Dropped)),
            _ => Err(Fault::Dropped),
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.board.settle(self.row, Err(Fault::Dropped));
    }
}

impl Duty {
    /// Notes what stops the work that begins. False if nobody waits for it any more.
    pub(crate) fn begin(&self, cancel: Cancel) -> bool {
        match self.board.lock().rows.get_mut(self.row) {
            Some(Row::Open(before)) => {
                *before = Some(cancel);
                true
            }
            _ => false,
        }
    }

    /// Words of a mask.
    pub(crate) fn words(&self) -> usize {
        self.board.words
    }

    /// Settles the row. A mask goes into the step's inputs if nobody settled it before.
    pub(crate) fn finish(self, outcome: Result<(&[u32], Made), Fault>) {
        self.board.settle(self.row, outcome);
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.board.settle(self.row, Err(Fault::Died));
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.lock();
        write!(f, "Board({} of {} rows open, {:?})", rows.open, rows.rows.len(), self.point)
    }
}

#[cfg(test)]
mod tests;

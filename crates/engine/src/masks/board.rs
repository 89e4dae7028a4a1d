use crate::error::EngineError;
use crate::masks::rules::{Cancel, Matching};
use mlx_serving_device::{Buffer, Point};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks at which rows are late.
const TICK: Duration = Duration::from_millis(5);
/// Limits of one mask for which a step waits until the masks that are left have to be quick.
const GENEROUS: u32 = 2;
/// Limits of one mask for which a step waits at most.
const WHOLE: u32 = 10;
/// Part of the limit that a mask may take that has to be quick.
const QUICK: u32 = 10;
/// Time for each token that is taken before a mask: many are where a failed step has to be computed again.
const TOKEN: Duration = Duration::from_micros(200);

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
    /// A mask is to come.
    Open(Work),
    /// Its mask is written, or none will be; the outcome, until the sequence takes it.
    Settled(Option<Result<Made, Fault>>),
}

/// Work on a mask.
#[derive(Default)]
struct Work {
    /// Time that the step has waited for it since it began, if it has.
    ran: Option<Duration>,
    /// Time that it may take beside that of a mask.
    more: Duration,
    /// Stops it.
    cancel: Option<Cancel>,
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
    /// The engine has waited so long for its work.
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
        match fault {
            Fault::Late(limit) => EngineError::Grammar(format!(
                "the tokens that it allows next were not known within {limit:?}; simplify the schema or the grammar"
            )),
            Fault::Stuck(why) => EngineError::Grammar(format!("{why}; change the schema or the grammar")),
            Fault::Died => EngineError::Masks(
                "the thread that works out which tokens it allows next has failed, which is a fault of this program; try again, \
                 and report it with the schema or the grammar"
                    .into(),
            ),
            Fault::Dropped => EngineError::Masks("the step was given up".into()),
        }
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
        let open = Rows { rows: (0..rows).map(|_| Row::Open(Work::default())).collect(), open: rows };
        let board = Arc::new(Self { masks, words, point, rows: Mutex::new(open), settled: Condvar::new() });
        let orders = (0..rows).map(|row| Order { board: board.clone(), row }).collect();
        (board, orders)
    }

    /// Waits until every row is settled. Work that goes on for longer than `limit` is too late, and fails its own row: those behind it get
    /// their turn. Once the step has waited for some such time, less is left to each, so that it waits a bounded time in all. Returns how
    /// many rows were late. Once the step has `ended` without them, none is wanted any more.
    ///
    /// Time counts as the ticks in which it is looked for, so that one in which the process was stopped does not.
    pub(crate) fn wait(&self, limit: Duration, ended: impl Fn() -> bool) -> usize {
        let (mut waited, mut late) = (Duration::ZERO, 0);
        let mut rows = self.lock();
        while rows.open > 0 {
            if ended() {
                self.settle_where(rows, &Fault::Dropped, |_| true);
                return late;
            }
            let own = if waited < GENEROUS * limit { limit } else { limit / QUICK };
            let over = waited >= WHOLE * limit;
            let is_late = |work: &Work| over || work.ran.is_some_and(|ran| ran >= own + work.more);
            late += self.settle_where(rows, &Fault::Late(if over { waited } else { own }), is_late);
            rows = self.lock();
            if rows.open == 0 {
                break;
            }
            let began = Instant::now();
            rows = self.settled.wait_timeout(rows, TICK.min(limit)).unwrap_or_else(PoisonError::into_inner).0;
            let tick = began.elapsed().min(2 * TICK);
            waited += tick;
            for row in &mut rows.rows {
                if let Row::Open(Work { ran: Some(ran), .. }) = row {
                    *ran += tick;
                }
            }
        }
        late
    }

    /// Settles every row: nobody wants the step's results any more.
    pub(crate) fn abandon(&self) {
        self.settle_where(self.lock(), &Fault::Dropped, |_| true);
    }

    fn settle_where(&self, mut rows: MutexGuard<'_, Rows>, fault: &Fault, which: impl Fn(&Work) -> bool) -> usize {
        let mut stopped = Vec::new();
        for row in &mut rows.rows {
            if let Row::Open(work) = row
                && which(work)
            {
                stopped.push(work.cancel.take());
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
        let Some(Row::Open(work)) = rows.rows.get_mut(row) else { return };
        let stopped = work.cancel.take().filter(|_| matches!(outcome, Err(Fault::Dropped)));
        let outcome = outcome.and_then(|(mask, made)| {
            let at = 4 * (row * self.words) as u64;
            self.masks.write(at, mask).map(|()| made).map_err(|error| {
                tracing::error!(%error, "a mask could not be written");
                Fault::Died
            })
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
    /// Notes that the work begins, with so many tokens to take. False if nobody waits for it any more.
    pub(crate) fn begin(&self, tokens: usize) -> bool {
        self.note(|work| {
            work.ran = Some(Duration::ZERO);
            work.more = TOKEN.saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX));
        })
    }

    /// Notes what stops it. False if nobody waits for it any more.
    pub(crate) fn stops_by(&self, cancel: Cancel) -> bool {
        self.note(|work| work.cancel = Some(cancel))
    }

    fn note(&self, note: impl FnOnce(&mut Work)) -> bool {
        match self.board.lock().rows.get_mut(self.row) {
            Some(Row::Open(work)) => {
                note(work);
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

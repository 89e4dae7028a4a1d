use std::cell::RefCell;
use std::rc::Rc;

/// Rows of the sampling history: token counts of the sequences that penalize.
#[derive(Debug)]
pub(crate) struct HistoryRows(Rc<RefCell<Vec<u32>>>);

/// A sequence's row of the history, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct HistoryRow {
    row: u32,
    free: Rc<RefCell<Vec<u32>>>,
}

impl HistoryRows {
    /// Makes `count` free rows, one for each sequence that runs.
    pub(crate) fn new(count: usize) -> Self {
        Self(Rc::new(RefCell::new((0..count as u32).rev().collect())))
    }

    /// A row that nobody has. What it counts belongs to somebody else until its new owner's tokens are observed.
    pub(crate) fn take(&self) -> Option<HistoryRow> {
        let row = self.0.borrow_mut().pop()?;
        Some(HistoryRow { row, free: self.0.clone() })
    }
}

impl HistoryRow {
    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.row
    }
}

impl Drop for HistoryRow {
    fn drop(&mut self) {
        self.free.borrow_mut().push(self.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_free_again_when_its_sequence_goes() {
        let rows = HistoryRows::new(2);
        let (one, two) = (rows.take().unwrap(), rows.take().unwrap());
        assert_ne!(one.number(), two.number());
        assert!(rows.take().is_none());
        let number = one.number();
        drop(one);
        assert_eq!(rows.take().unwrap().number(), number);
    }
}

//! The composition root: builds every room in reading order and owns the drain.

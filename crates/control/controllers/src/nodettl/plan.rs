//! How long kubelets of a cluster of some size may keep what they read: the larger it is, the longer.

/// At most how many nodes a cluster has, at least how many when it shrinks from a larger size, and the seconds.
const SIZES: &[(usize, usize, u32)] =
    &[(100, 0, 0), (500, 90, 15), (1000, 450, 30), (2000, 900, 60), (usize::MAX, 1800, 300)];

/// The row that counts, when `row` counted before: neighbours overlap, so that it does not change back and forth.
pub fn row(nodes: usize, row: usize) -> usize {
    let mut row = row.min(SIZES.len() - 1);
    while nodes > SIZES[row].0 {
        row += 1;
    }
    while nodes < SIZES[row].1 {
        row -= 1;
    }
    row
}

/// The seconds of a row.
pub fn seconds(row: usize) -> u32 {
    SIZES[row].2
}

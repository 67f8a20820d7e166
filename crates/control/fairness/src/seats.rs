//! How the server's seats are shared out: by the shares of the levels, and by what they asked for lately.

/// A level's part in the sharing out, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Claim {
    /// What it has when all levels are busy.
    pub nominal: f64,
    /// What it keeps when others borrow.
    pub least: f64,
    /// What it may have with what it borrows.
    pub most: f64,
    /// What it asked for lately.
    pub demand: f64,
}

/// The nominal seats of levels by their shares; each has one at least if it has any share.
pub(crate) fn nominal(total: u32, shares: &[u32]) -> Vec<u32> {
    let sum: f64 = shares.iter().map(|s| f64::from(*s)).sum();
    let part = |s: &u32| if sum == 0.0 { 0 } else { (f64::from(total) * f64::from(*s) / sum).ceil() as u32 };
    shares.iter().map(part).collect()
}

/// Shares `total` seats out by demand, nobody below its least or above its most: every claim gets the same
/// proportion of what it asks for, as far as its bounds let it.
pub(crate) fn allocate(total: f64, claims: &[Claim]) -> Vec<u32> {
    let target = |c: &Claim| c.demand.clamp(c.least, c.most.max(c.least)).max(1.0);
    let given = |c: &Claim, scale: f64| (target(c) * scale).clamp(c.least, c.most.max(c.least));
    let sum = |scale: f64| claims.iter().map(|c| given(c, scale)).sum::<f64>();
    let (mut low, mut high) = (0.0, total.max(1.0) * 2.0);
    for _ in 0..48 {
        let middle = (low + high) / 2.0;
        if sum(middle) > total { high = middle } else { low = middle }
    }
    claims.iter().map(|c| given(c, low).round() as u32).collect()
}

/// The demand for seats over a period: its average and how far it swings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    current: f64,
    since_seconds: f64,
    began_seconds: f64,
    sum: f64,
    squares: f64,
    peak: f64,
    smooth: f64,
}

/// How much of the last period's demand lasts into the next one.
const SMOOTHING: f64 = 0.977;

impl Demand {
    pub fn set(&mut self, now_seconds: f64, seats: f64) {
        let time = (now_seconds - self.since_seconds).max(0.0);
        self.sum += self.current * time;
        self.squares += self.current * self.current * time;
        self.since_seconds = now_seconds;
        self.current = seats;
        self.peak = self.peak.max(seats);
    }

    /// Ends the period: the smoothed demand and its peak.
    pub fn take(&mut self, now_seconds: f64) -> (f64, f64) {
        self.set(now_seconds, self.current);
        let time = (now_seconds - self.began_seconds).max(1e-9);
        let average = self.sum / time;
        let swing = (self.squares / time - average * average).max(0.0).sqrt();
        let envelope = average + swing;
        self.smooth = envelope.max(SMOOTHING * self.smooth + (1.0 - SMOOTHING) * envelope);
        let peak = std::mem::replace(&mut self.peak, self.current);
        (self.sum, self.squares, self.began_seconds) = (0.0, 0.0, now_seconds);
        (self.smooth, peak)
    }
}

//! One priority level: who has a seat, who waits in which queue, who is next. Time is an argument, in seconds.

use crate::schema::Queuing;
use crate::seats::Demand;
use std::collections::VecDeque;

/// What a request is taken to need before it is known, per seat.
const GUESSED_SECONDS: f64 = 0.003;

/// The number of a request that waits.
pub(crate) type Ticket = u64;

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It has its seats; the queue that it counts for.
    Execute(usize),
    /// It waits; it is the last of so many in its queue.
    Wait(Ticket, usize),
    QueueFull,
    NoSeat,
}

/// A request that may go on now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Woken {
    pub ticket: Ticket,
    pub queue: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub ticket: Ticket,
    pub seats: u32,
    arrived_at: f64,
    pub arrived_seconds: f64,
    pub schema: String,
    pub flow: String,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub waiting: VecDeque<Waiting>,
    pub executing: usize,
    pub seats: u32,
    /// The virtual time at which its next request would start.
    pub next: f64,
}

impl Queue {
    pub fn seats_waiting(&self) -> u32 {
        self.waiting.iter().map(|w| w.seats).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Level {
    pub queuing: Option<Queuing>,
    pub limit: u32,
    pub queues: Vec<Queue>,
    pub executing: usize,
    pub seats: u32,
    pub waiting: usize,
    pub demand: Demand,
    seats_waiting: u32,
    /// The virtual time, in seat-seconds that a busy queue was served.
    pub virtual_time: f64,
    looked_seconds: f64,
    robin: usize,
    arrivals: usize,
    tickets: Ticket,
}

impl Level {
    pub fn new(queuing: Option<Queuing>, limit: u32) -> Self {
        let queues = (0..queuing.map_or(1, |q| q.queues)).map(|_| Queue::default()).collect();
        Self {
            queuing,
            limit,
            queues,
            executing: 0,
            seats: 0,
            waiting: 0,
            demand: Demand::default(),
            seats_waiting: 0,
            virtual_time: 0.0,
            looked_seconds: 0.0,
            robin: 0,
            arrivals: 0,
            tickets: 0,
        }
    }

    pub fn idle(&self) -> bool {
        self.executing == 0 && self.waiting == 0
    }

    /// A request of a flow (its hash decides the queues it may go to) that needs `seats`.
    pub fn arrive(&mut self, now: f64, hash: u64, seats: u32, names: (&str, &str)) -> Arrival {
        self.advance(now);
        let Some(queuing) = self.queuing else {
            if self.seats >= self.limit {
                return Arrival::NoSeat;
            }
            return Arrival::Execute(self.seat(now, 0, seats));
        };
        let at = self.choose(hash, queuing);
        let queue = &mut self.queues[at];
        if queue.waiting.is_empty() && queue.executing == 0 {
            queue.next = self.virtual_time;
        }
        if self.waiting == 0 && self.fits(seats) {
            return Arrival::Execute(self.seat(now, at, seats));
        }
        let queue = &mut self.queues[at];
        if self.seats >= self.limit && queue.waiting.len() >= queuing.queue_length_limit {
            return Arrival::QueueFull;
        }
        self.tickets += 1;
        let waiting = Waiting {
            ticket: self.tickets,
            seats,
            arrived_at: self.virtual_time,
            arrived_seconds: now,
            schema: names.0.to_owned(),
            flow: names.1.to_owned(),
        };
        queue.waiting.push_back(waiting);
        let length = queue.waiting.len();
        self.waiting += 1;
        self.seats_waiting += seats;
        self.note(now);
        Arrival::Wait(self.tickets, length)
    }

    /// A request with `seats` that counted for `queue` is answered after `taken` seconds.
    pub fn finish(&mut self, now: f64, queue: usize, seats: u32, taken: f64) {
        self.advance(now);
        self.executing -= 1;
        self.seats -= seats;
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.executing -= 1;
            queue.seats -= seats;
            // The guess is replaced by what was really used.
            queue.next -= (GUESSED_SECONDS - taken) * f64::from(seats);
            bound(queue);
        }
        self.note(now);
    }

    /// Gives free seats to those who wait, in their order.
    pub fn dispatch(&mut self, now: f64) -> Vec<Woken> {
        self.advance(now);
        let mut woken = Vec::new();
        while self.waiting > 0 && self.seats < self.limit {
            let Some(at) = self.next_queue() else { break };
            let Some(seats) = self.queues[at].waiting.front().map(|w| w.seats).filter(|s| self.fits(*s)) else { break };
            let Some(first) = self.queues[at].waiting.pop_front() else { break };
            self.robin = at;
            self.waiting -= 1;
            self.seats_waiting -= seats;
            self.seat(now, at, seats);
            bound(&mut self.queues[at]);
            woken.push(Woken { ticket: first.ticket, queue: at });
        }
        woken
    }

    /// Takes back a request that waits; false when it waits no more.
    pub fn leave(&mut self, now: f64, ticket: Ticket) -> bool {
        for queue in &mut self.queues {
            let Some(at) = queue.waiting.iter().position(|w| w.ticket == ticket) else { continue };
            if let Some(gone) = queue.waiting.remove(at) {
                self.waiting -= 1;
                self.seats_waiting -= gone.seats;
            }
            bound(queue);
            self.note(now);
            return true;
        }
        false
    }

    fn fits(&self, seats: u32) -> bool {
        // A request wider than the whole level goes alone.
        if seats > self.limit { self.executing == 0 && self.limit > 0 } else { self.seats + seats <= self.limit }
    }

    fn seat(&mut self, now: f64, at: usize, seats: u32) -> usize {
        self.executing += 1;
        self.seats += seats;
        let queue = &mut self.queues[at];
        queue.executing += 1;
        queue.seats += seats;
        queue.next += GUESSED_SECONDS * f64::from(seats);
        self.note(now);
        at
    }

    fn note(&mut self, now: f64) {
        self.demand.set(now, f64::from(self.seats + self.seats_waiting));
    }

    /// Lets the virtual time go on: as fast as each busy queue is served when all are served alike.
    fn advance(&mut self, now: f64) {
        let time = (now - self.looked_seconds).max(0.0);
        self.looked_seconds = now;
        if self.idle() || time == 0.0 {
            return;
        }
        let busy = self.queues.iter().filter(|q| q.executing > 0 || !q.waiting.is_empty()).count();
        let wanted = f64::from((self.seats + self.seats_waiting).min(self.limit));
        self.virtual_time += time * wanted / busy.max(1) as f64;
    }

    /// Of the queues that a flow may use, the one with the least work.
    fn choose(&mut self, hash: u64, queuing: Queuing) -> usize {
        let hand = deal(hash, queuing.queues, queuing.hand_size);
        let offset = self.arrivals % hand.len().max(1);
        self.arrivals = self.arrivals.wrapping_add(1);
        let turned = hand[offset..].iter().chain(&hand[..offset]).copied();
        turned.min_by_key(|at| self.queues[*at].seats_waiting()).unwrap_or(0)
    }

    /// The queue whose first request would be done first.
    fn next_queue(&self) -> Option<usize> {
        let count = self.queues.len();
        let order = (1..=count).map(|step| (self.robin + step) % count);
        let finish = |at: &usize| {
            let first = self.queues[*at].waiting.front()?;
            Some(self.queues[*at].next + GUESSED_SECONDS * f64::from(first.seats))
        };
        order.filter_map(|at| Some((finish(&at)?, at))).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at)
    }
}

/// No request starts, in virtual time, before it arrived.
fn bound(queue: &mut Queue) {
    if let Some(first) = queue.waiting.front() {
        queue.next = queue.next.max(first.arrived_at);
    }
}

/// A hand of different queues for a flow, by its hash: two flows rarely have all of theirs in common.
pub(crate) fn deal(mut hash: u64, deck: usize, hand: usize) -> Vec<usize> {
    let mut cards: Vec<usize> = Vec::with_capacity(hand);
    for dealt in 0..hand {
        let left = (deck - dealt) as u64;
        let mut card = (hash % left) as usize;
        hash /= left;
        // The card-th of those not dealt yet.
        let mut sorted = cards.clone();
        sorted.sort_unstable();
        for taken in sorted {
            if card >= taken {
                card += 1;
            }
        }
        cards.push(card);
    }
    cards
}

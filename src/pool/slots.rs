//! The places of one pool. A server connection is where it stands: idle here, or with its user;
//! counts are lengths, and one function moves.
//!
//! ```text
//!            checkout                    checkin
//!   idle ───────────────▶ in use ───────────────────▶ first waiter, else idle
//!    │                      │ closed
//!    └──── evict ───────────┴──────────▶ gone: the first waiter may connect
//! ```

use std::collections::VecDeque;

/// What a checkout gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Checkout<C> {
    /// An idle connection.
    Ready(C),
    /// A place: connect, then either use it or report `closed`.
    MayConnect,
    /// All places are taken: wait in line.
    Full,
}

/// The places of one pool, generic over connection and waiter so that both can be numbers in tests.
#[derive(Debug)]
pub struct Slots<C, W> {
    idle: Vec<C>,
    /// In use, connecting, or being handed over.
    busy: usize,
    waiters: VecDeque<W>,
    waiters_max: usize,
    size: usize,
}

impl<C, W> Slots<C, W> {
    /// `size` places and `waiters_max` places in the line.
    pub fn new(size: usize, waiters_max: usize) -> Slots<C, W> {
        Slots { idle: Vec::new(), busy: 0, waiters: VecDeque::new(), waiters_max, size: size.max(1) }
    }

    /// Connections that nobody uses.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Those connections, the one that comes next at the end.
    pub fn idle_connections(&self) -> &[C] {
        &self.idle
    }

    /// Connections in use or being made.
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Waiters in line.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// New bounds after a reload; what is above them goes as it comes back.
    pub fn resize(&mut self, size: usize, waiters_max: usize) {
        (self.size, self.waiters_max) = (size.max(1), waiters_max);
    }

    /// An idle connection, the one that was used last where none is preferred; else a place.
    pub fn checkout(&mut self, preferred: impl Fn(&C) -> bool) -> Checkout<C> {
        let choice = self.idle.iter().rposition(preferred).or(self.idle.len().checked_sub(1));
        if let Some(at) = choice {
            self.busy += 1;
            return Checkout::Ready(self.idle.remove(at));
        }
        if self.busy < self.size {
            self.busy += 1;
            return Checkout::MayConnect;
        }
        Checkout::Full
    }

    /// The idle connection that was used last of those that are `wanted`.
    pub fn take_idle(&mut self, wanted: impl Fn(&C) -> bool) -> Option<C> {
        let at = self.idle.iter().rposition(wanted)?;
        self.busy += 1;
        Some(self.idle.remove(at))
    }

    /// Takes a place in the line; gives the waiter back when the line is full.
    pub fn enqueue(&mut self, waiter: W) -> Result<(), W> {
        if self.waiters.len() >= self.waiters_max {
            return Err(waiter);
        }
        self.waiters.push_back(waiter);
        Ok(())
    }

    /// Those who are not `alive` any more take up no place in the line.
    pub fn leave_line(&mut self, alive: impl Fn(&W) -> bool) {
        self.waiters.retain(alive);
    }

    /// A connection comes back clean. If somebody waits it goes to the first of those who are
    /// `preferred`, else to the first; otherwise it is kept. Above the pool's size it is returned, to be
    /// closed.
    pub fn checkin(
        &mut self,
        connection: C,
        alive: impl Fn(&W) -> bool,
        preferred: impl Fn(&W, &C) -> bool,
    ) -> Option<(C, Option<W>)> {
        if self.busy > self.size {
            self.busy -= 1;
            return Some((connection, None));
        }
        if let Some(at) =
            self.waiters.iter().position(|waiter| alive(waiter) && preferred(waiter, &connection))
            && let Some(waiter) = self.waiters.remove(at)
        {
            return Some((connection, Some(waiter)));
        }
        match self.next_waiter(alive) {
            Some(waiter) => Some((connection, Some(waiter))),
            None => {
                self.busy -= 1;
                self.idle.push(connection);
                None
            }
        }
    }

    /// A connection is gone (or was never made): its place passes to the first waiter.
    pub fn closed(&mut self, alive: impl Fn(&W) -> bool) -> Option<W> {
        if self.busy <= self.size
            && let Some(waiter) = self.next_waiter(alive)
        {
            return Some(waiter);
        }
        self.busy -= 1;
        None
    }

    /// There may be more places since a resize: the next waiter takes one.
    pub fn grown(&mut self, alive: impl Fn(&W) -> bool) -> Option<W> {
        if self.busy + self.idle.len() >= self.size {
            return None;
        }
        let waiter = self.next_waiter(alive)?;
        self.busy += 1;
        Some(waiter)
    }

    /// A place to be filled in advance, while there are fewer than `keep` connections, used or not.
    pub fn reserve(&mut self, keep: usize) -> bool {
        let free = self.busy + self.idle.len() < keep.min(self.size);
        self.busy += usize::from(free);
        free
    }

    /// Takes out the idle connections that `unwanted` says.
    pub fn evict(&mut self, unwanted: impl FnMut(&mut C) -> bool) -> Vec<C> {
        self.idle.extract_if(.., unwanted).collect()
    }

    fn next_waiter(&mut self, alive: impl Fn(&W) -> bool) -> Option<W> {
        while let Some(waiter) = self.waiters.pop_front() {
            if alive(&waiter) {
                return Some(waiter);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_connection_that_comes_back_goes_to_the_first_who_waits() {
        let mut slots: Slots<u32, u32> = Slots::new(1, 2);
        assert_eq!(slots.checkout(|_| false), Checkout::MayConnect);
        assert_eq!(slots.checkout(|_| false), Checkout::Full);
        assert_eq!(slots.enqueue(1), Ok(()));
        assert_eq!(slots.enqueue(2), Ok(()));
        assert_eq!(slots.enqueue(3), Err(3));
        assert_eq!(slots.checkin(7, |&waiter| waiter != 1, |_, _| false), Some((7, Some(2))));
        assert_eq!((slots.idle(), slots.busy()), (0, 1));
        assert_eq!(slots.checkin(7, |_| true, |_, _| false), None);
        assert_eq!((slots.idle(), slots.busy()), (1, 0));
    }

    #[test]
    fn whoever_leaves_the_line_makes_room_in_it() {
        let mut slots: Slots<u32, u32> = Slots::new(1, 2);
        slots.checkout(|_| false);
        assert_eq!((slots.enqueue(1), slots.enqueue(2), slots.enqueue(3)), (Ok(()), Ok(()), Err(3)));
        slots.leave_line(|&waiter| waiter != 1);
        assert_eq!((slots.waiting(), slots.enqueue(3)), (1, Ok(())));
        assert_eq!(slots.closed(|_| true), Some(2));
    }

    #[test]
    fn a_preferred_waiter_is_served_before_the_first() {
        let mut slots: Slots<u32, u32> = Slots::new(1, 3);
        slots.checkout(|_| false);
        for waiter in [1, 2, 3] {
            assert_eq!(slots.enqueue(waiter), Ok(()));
        }
        assert_eq!(slots.checkin(7, |_| true, |&waiter, _| waiter == 2), Some((7, Some(2))));
        assert_eq!(slots.checkin(7, |_| true, |&waiter, _| waiter == 9), Some((7, Some(1))));
    }

    #[test]
    fn a_preferred_connection_is_taken_first_and_the_last_used_otherwise() {
        let mut slots: Slots<u32, u32> = Slots::new(3, 0);
        for _ in 0..3 {
            slots.checkout(|_| false);
        }
        for connection in [1, 2, 3] {
            slots.checkin(connection, |_| true, |_, _| false);
        }
        assert_eq!(slots.checkout(|&connection| connection == 1), Checkout::Ready(1));
        assert_eq!(slots.checkout(|_| false), Checkout::Ready(3));
    }

    #[test]
    fn a_lost_connection_leaves_its_place_to_a_waiter() {
        let mut slots: Slots<u32, u32> = Slots::new(1, 1);
        slots.checkout(|_| false);
        assert_eq!(slots.enqueue(9), Ok(()));
        assert_eq!(slots.closed(|_| true), Some(9));
        assert_eq!(slots.closed(|_| true), None);
        assert_eq!(slots.checkout(|_| false), Checkout::MayConnect);
    }

    #[test]
    fn a_pool_that_grows_lets_those_who_wait_connect() {
        let mut slots: Slots<u32, u32> = Slots::new(1, 3);
        slots.checkout(|_| false);
        (1..4).for_each(|waiter| assert_eq!(slots.enqueue(waiter), Ok(())));
        assert_eq!(slots.grown(|_| true), None);
        slots.resize(3, 3);
        assert_eq!(slots.grown(|&waiter| waiter != 1), Some(2));
        assert_eq!(slots.grown(|_| true), Some(3));
        assert_eq!((slots.grown(|_| true), slots.busy()), (None, 3));
    }

    #[test]
    fn places_are_filled_in_advance_up_to_what_is_kept_and_to_the_size() {
        let mut slots: Slots<u32, u32> = Slots::new(2, 0);
        assert!(slots.reserve(1) && !slots.reserve(1));
        assert_eq!(slots.checkin(1, |_| true, |_, _| false), None);
        assert!(slots.reserve(9) && !slots.reserve(9));
        assert_eq!((slots.idle(), slots.busy()), (1, 1));
    }

    proptest! {
        #[test]
        fn never_more_connections_than_places(script in prop::collection::vec(0..4_u8, 0..200), size in 1..5_usize) {
            let mut slots: Slots<u32, u32> = Slots::new(size, 8);
            let (mut held, mut next) = (0_usize, 0_u32);
            for step in script {
                match step {
                    0 => match slots.checkout(|_| false) {
                        Checkout::Ready(_) | Checkout::MayConnect => held += 1,
                        Checkout::Full => { let _ = slots.enqueue(0); }
                    },
                    1 if held > 0 => {
                        next += 1;
                        if slots.checkin(next, |_| true, |_, _| false).is_none() { held -= 1; }
                    }
                    2 if held > 0 && slots.closed(|_| true).is_none() => held -= 1,
                    _ => { slots.evict(|_| true); }
                }
                prop_assert_eq!(slots.busy(), held);
                prop_assert!(slots.busy() + slots.idle() <= size);
            }
        }
    }
}

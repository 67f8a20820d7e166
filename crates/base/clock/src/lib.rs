//! Tells the time through a trait, so that tests and the simulator can be the ones who tell it.

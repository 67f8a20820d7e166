//! Priority and fairness: which request is answered next when there are more than can be.

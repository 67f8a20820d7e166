//! Gives Services of type LoadBalancer the addresses of nodes, where no other load balancer is asked for by a class.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

//! How many reads may be on the primary at a time only because no replica was fresh enough. When all replicas
//! lag at once, all reads would come to it together, and the writes with them would stand in line.

use crate::routing::reason::Reason;
use crate::routing::request::RoutingPolicy;

/// May a read that `decide` sends to the primary for this reason begin, with `there` of its kind there
/// already?
pub fn may_begin(reason: Reason, there: u64, policy: &RoutingPolicy) -> bool {
    !counts(reason) || there < u64::from(policy.lag_reads)
}

/// Is it on the primary only because replicas lag?
pub fn counts(reason: Reason) -> bool {
    reason == Reason::NotFreshEnough
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lag_brings_to_the_primary_is_limited() {
        let policy = RoutingPolicy { lag_reads: 2, ..RoutingPolicy::default() };
        for reason in Reason::ALL {
            let limited = reason == Reason::NotFreshEnough;
            assert!(may_begin(reason, 1, &policy), "{reason:?}");
            assert_eq!(may_begin(reason, 2, &policy), !limited, "{reason:?}");
        }
        let none = RoutingPolicy { lag_reads: 0, ..RoutingPolicy::default() };
        assert!(!may_begin(Reason::NotFreshEnough, 0, &none));
    }
}

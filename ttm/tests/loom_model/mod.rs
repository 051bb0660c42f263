//! Explores a model.
//!
//! One model a file, because a deadlock inside one ends its process. Loom's own `LOOM_*` variables
//! widen the search; by default a thread is preempted at most as often as the test says.

/// Runs `scenario` in all its executions with at most `preemptions` preemptions each.
pub(crate) fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    // A transaction is a few hundred steps, its making included.
    builder.max_branches = builder.max_branches.max(50_000);
    builder.check(scenario);
}

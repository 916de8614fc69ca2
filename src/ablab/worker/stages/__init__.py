"""One file a stage kind, each with `run(order, context) -> Outcome`."""

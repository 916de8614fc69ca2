"""The child process of one run: reads the order, dispatches the stage kind, turns any failure into a record."""

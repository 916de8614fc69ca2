"""The one training loop: optimiser groups, schedules, precision, accumulation, distribution, checkpoint, resume, time."""

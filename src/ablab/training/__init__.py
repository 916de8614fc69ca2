"""The one training loop: optimizer groups, schedules, precision, accumulation, checkpoint, resume, named time."""

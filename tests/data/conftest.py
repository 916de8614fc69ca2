"""No test of this room asserts a time, hypothesis's deadline for one example included."""

from hypothesis import settings

settings.register_profile("data", deadline=None)
settings.load_profile("data")

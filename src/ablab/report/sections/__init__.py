"""The sections of a report, one file a subject; each is a function of the `View` that returns blocks."""

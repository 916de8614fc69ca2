"""What makes a retrieval study unsound, beyond the general checks; no torch."""

AUDITS = ()

"""What makes a vision-language study unsound, beyond the general checks; no torch."""

from __future__ import annotations

AUDITS = ()

"""How it is told: Markdown reports and the rows of status, from the store alone. Knows no task."""

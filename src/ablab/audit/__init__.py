"""Is a study sound: small families of checks, each returning findings. Nothing here imports torch."""

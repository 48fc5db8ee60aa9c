"""Measured comparisons, one a script; see RESULTS.md for what they found, and where."""

"""From the table of estimates to verdicts and comparisons: no file, no torch."""

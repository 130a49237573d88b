"""A report of runs: tables, plots and transcripts in one file."""

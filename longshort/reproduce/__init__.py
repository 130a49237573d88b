"""Both methods from distilling to the report, one command of ours after another."""

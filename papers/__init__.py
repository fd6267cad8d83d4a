"""The tables and figures of five papers, run again: ours beside theirs. `python -m papers --help`."""

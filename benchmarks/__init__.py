"""Speed and accuracy, ours and the peers' alternating in one run; results are JSON in `benchmarks/results`."""

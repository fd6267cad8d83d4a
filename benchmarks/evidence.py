"""`python -m benchmarks evidence`: how often log evidence lies within two of its standard errors of the truth.

Four targets of known evidence, of one mode, bent, with heavy tails and with many modes, 50 seeds of the defaults each.
All in one process, so that each target is compiled once; a cell that is in the results already is not run again.
"""

import argparse
import json

from benchmarks._record import RESULTS, commit, write
from benchmarks.accuracy import made_problems

TARGETS = ("funnel-10", "banana", "student-t-2.5", "lattice-9")
SEEDS = 50


def fit(problem, seed):
    """One fit, in numbers."""
    import thalweg as tw

    posterior = tw.infer(problem.target, seed=seed, progress=False)
    evidence, verdict = posterior.log_evidence, posterior.verdict
    return {
        "log Z error": None if evidence is None else evidence.value - problem.log_evidence,
        "standard error": None if evidence is None else evidence.standard_error,
        "ok": verdict.ok,
        "k-hat": verdict.khat,
        "commit": commit(),
    }


def covered(cells):
    """(how many lie within two standard errors, of how many)."""
    within = [c["log Z error"] is not None and abs(c["log Z error"]) <= 2 * c["standard error"] for c in cells.values()]
    return [sum(within), len(within)]


def main():
    """Measure what is missing and write after every cell."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    path = RESULTS / "evidence.json"
    cells = json.loads(path.read_text())["cells"] if path.exists() else {}
    problems = made_problems()
    for seed in range(SEEDS):
        for name in TARGETS:
            of = cells.setdefault(name, {})
            if str(seed) not in of:
                of[str(seed)] = fit(problems[name], seed)
                summary = {k: covered(v) for k, v in cells.items()}
                result = {"within two standard errors": summary, "cells": cells}
                write("evidence", ["thalweg", "jax", "jaxlib", "numpy"], result)


if __name__ == "__main__":
    main()

"""`python -m benchmarks ablation [--only PROBLEM ...]`: what each rung of "auto" is worth.

Every problem by the defaults, then without each rung that it climbed or might have, at one seed; a cell is what
`benchmarks.accuracy` measures, in a process of its own. One that is in the results already is not run again.
"""

import argparse
import json

from benchmarks._posteriordb import IN_NUMPYRO
from benchmarks._record import RESULTS, commit, data_folder, write
from benchmarks.accuracy import WITHOUT, cell

SEED = 0
ONE, SEVERAL = ("Gaussian", "flow", "refit", "chains"), ("mixture of Gaussians", "mixture of flows", "particles")
PROBLEMS = {
    "banana": ONE,
    "funnel-10": ONE,
    "funana-10": ONE,
    "student-t-1.5": ("heavy tails", *ONE),
    "student-t-2.5": ("heavy tails", *ONE),
    "ill-conditioned-100": ONE[:2],
    "lattice-9": SEVERAL,
    "gmm40": SEVERAL,
    "many-well-6-rotated": SEVERAL,
    "many-well-32": SEVERAL,
    "ring": (*ONE, *SEVERAL),
    IN_NUMPYRO: ("non-centred Gaussian", *ONE),
    "stochastic_volatility_log_sp500_small": ONE,
}
SUITE = {IN_NUMPYRO: "posteriordb", "stochastic_volatility_log_sp500_small": "gym"}
"""Of those that are not of "problems"; they want $THALWEG_DATA."""


def main():
    """Measure what is missing and write after every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], choices=PROBLEMS, metavar="PROBLEM")
    only = parser.parse_args().only
    if not only or SUITE.keys() & set(only):
        data_folder()  # before a cell fails without it
    path = RESULTS / "ablation.json"
    cells = json.loads(path.read_text())["cells"] if path.exists() else {}
    for name, rungs in PROBLEMS.items():
        for method in ("thalweg", *(WITHOUT + r for r in rungs)):
            of = cells.setdefault(name, {})
            if method not in of and (not only or name in only):
                of[method] = {**cell(method, SUITE.get(name, "problems"), name, SEED), "commit": commit()}
                write("ablation", ["thalweg", "jax", "jaxlib", "numpy"], {"seed": SEED, "cells": cells})


if __name__ == "__main__":
    main()

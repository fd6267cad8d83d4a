"""`python -m benchmarks accuracy --suite NAME [--only PROBLEM ...]`: is the default `infer` right, and does it know?

problems    targets with exact draws and known evidence (`thalweg.problems`), three seeds

Every cell is a process's work of its own, kept in the result as soon as it is done: what is there already, made by the
same settings, is not run again. A cell holds the error of log Z, the verdict, ELBO and EUBO (E_p[log p - log q] + log Z
from exact draws), forward and reverse effective shares, coverage of the modes and largest errors of means from 20,000
corrected draws (in exact sds; heavy tails have none), seconds, and what was done.
"""

import json
import math
import sys
import time

from benchmarks._record import RESULTS, write

SEEDS = (0, 1, 2)
DRAWS = 20_000


def problems():
    """All of them, by name."""
    from thalweg import problems as of

    made = [
        of.funnel(),
        of.banana(),
        of.funana(),
        of.student_t(1.5),
        of.student_t(2.5),
        of.gaussian(),
        of.correlated_gaussian(),
        of.lattice(9),
        of.lattice(16),
        of.gmm40(),
        of.many_well(6),
        of.many_well(6, rotated=True),
        of.many_well(32),
        of.many_well(32, rotated=True),
        of.ring(),
    ]
    return {p.name: p for p in made}


def _share(log_ratio):
    """Effective share of weights."""
    import numpy as np

    w = np.exp(log_ratio - log_ratio.max())
    return float(w.sum() ** 2 / (w**2).sum() / len(w))


def cell(problem, seed):
    """One fit by the defaults, in numbers."""
    import numpy as np

    import thalweg as tw
    from thalweg.targets import log_density_of_rows

    start = time.perf_counter()
    posterior = tw.infer(problem.target, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    verdict, evidence, elbo = posterior.verdict, posterior.log_evidence, posterior.elbo
    exact = problem.draw(np.random.default_rng(1), DRAWS)
    out = {
        "ok": verdict.ok,
        "raw ok": verdict.raw_ok,
        "k-hat": verdict.khat,
        "effective share": verdict.ess / verdict.n_draws,
        "seconds": seconds,
        "steps taken": list(posterior.steps_taken),
        "reasons": list(verdict.reasons),
    }
    if evidence is not None:
        out["log Z error"] = evidence.value - problem.log_evidence
        out["log Z standard error"] = evidence.standard_error
        log_q = np.asarray(posterior.log_prob({"x": exact}), float)
        ratio = np.asarray(log_density_of_rows(problem.target, exact), float) - log_q
        out["ELBO"] = None if elbo is None else elbo.value - problem.log_evidence
        out["EUBO"] = float(ratio.mean()) - problem.log_evidence
        # under p, 1 / w has mean 1 / Z: its effective share is the forward one
        out["forward effective share"] = _share(-ratio)
        corrected = posterior.resample(DRAWS, seed=1)["x"]
        out["coverage"] = problem.coverage(corrected)
        spread = exact.std(0)
        out["mean error"] = float(np.max(np.abs(corrected.mean(0) - exact.mean(0)) / spread))
        out["log sd ratio"] = float(np.max(np.abs(np.log(corrected.std(0) / spread))))
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in out.items()}


def main():
    """Run what is missing and write after every cell."""
    arguments = sys.argv[1:]
    suite = arguments[arguments.index("--suite") + 1] if "--suite" in arguments else "problems"
    if suite != "problems":
        raise SystemExit(f"accuracy: `--suite` must be problems, got {suite}")
    chosen = arguments[arguments.index("--only") + 1 :] if "--only" in arguments else []
    path = RESULTS / f"accuracy-{suite}.json"
    cells = json.loads(path.read_text())["cells"] if path.exists() else {}
    for name, problem in problems().items():
        if chosen and name not in chosen:
            continue
        for seed in SEEDS:
            if str(seed) not in cells.setdefault(name, {}):
                cells[name][str(seed)] = cell(problem, seed)
                write(f"accuracy-{suite}", ["thalweg", "jax", "jaxlib", "numpy"], {"draws": DRAWS, "cells": cells})


if __name__ == "__main__":
    main()

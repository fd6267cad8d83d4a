"""`python -m benchmarks accuracy [--suite NAME ...] [--only PROBLEM ...]`: is the default right, and does it know?

problems     targets with exact draws and known evidence (`thalweg.problems`)
posteriordb  23 posteriors with reference draws; $THALWEG_DATA
regressions  logistic regressions of known evidence
gym          posteriors of Inference Gym, to 2,519 dimensions, and a Cox process in 1,600

Three seeds of each. Every cell is a process of its own, kept in the result as soon as it is done: what is there already
is not run again. Other methods (`--methods`, see `_competitors`) run on the same density. "cold" is the whole process
from Python's start to 10,000 corrected draws, with no compiled programs kept from before; "warm" a second fit in it, by
another seed. NUTS runs after every cell of posteriordb, cold and warm alike.
"""

import argparse
import functools
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._record import RESULTS, commit, data_folder, processor, write

SUITES = ("problems", "posteriordb", "regressions", "gym")
SEEDS = (0, 1, 2)
DRAWS = {"problems": 20_000}
ROOT = Path(__file__).parents[1]
LIMIT = 3600
_WAYS = 128
COMPETITORS = {"posteriordb": ("thalweg", "NUTS")}
"""Those that run if nobody says which: others take long, and are asked for by `--methods`."""


def made_problems():
    """Of the suite of that name, by their names."""
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


def names(suite):
    """Of its cells."""
    from benchmarks import _gym, _posteriordb

    if suite == "problems":
        return tuple(made_problems())
    return {"posteriordb": tuple(_posteriordb.MODELS), "regressions": _gym.REGRESSIONS, "gym": (*_gym.GYM, "pines")}[
        suite
    ]


def _load(suite, name):
    """(target, draws -> matrix or None, mean, sd, log evidence or None, problem or None)."""
    import numpy as np

    from benchmarks import _gym, _posteriordb

    if suite == "problems":
        problem = made_problems()[name]
        exact = problem.draw(np.random.default_rng(1), DRAWS[suite])
        return problem.target, lambda d: d["x"], exact.mean(0), exact.std(0), problem.log_evidence, problem
    if suite == "posteriordb":
        target, labels, mean, sd, _ = _posteriordb.load(name)
        return target, lambda d: _posteriordb.as_matrix(labels, d), mean, sd, None, None
    if suite == "regressions":
        target, log_evidence, mean, sd = _gym.load_regression(name)
        return target, lambda d: d["w"], mean, sd, log_evidence, None
    if name == "pines":
        return _gym.load_pines(), None, None, None, None, None
    target, truth = _gym.load_gym(name)

    def columns(d):
        return np.hstack([np.reshape(d[k], (len(d[k]), -1)) for k in truth])

    mean, sd = (np.concatenate([np.ravel(q[i]) for q in truth.values()]) for i in range(2))
    return target, columns, mean, sd, None, None


def _share(log_ratio):
    """Effective share of weights."""
    import numpy as np

    w = np.exp(log_ratio - log_ratio.max())
    return float(w.sum() ** 2 / (w**2).sum() / len(w))


def _errors(matrix, mean, sd):
    """Of draws, (n, k), the worst of all columns; effective sizes as of four chains one after the other."""
    import numpy as np

    from thalweg.diagnostics import bulk_ess, tail_ess

    fourths = np.reshape(np.asarray(matrix, float)[: len(matrix) // 4 * 4], (4, -1, matrix.shape[1]))
    return {
        "mean error": float(np.max(np.abs(matrix.mean(0) - mean) / sd)),
        "log sd ratio": float(np.max(np.abs(np.log(matrix.std(0) / sd)))),
        **{
            name: float(min(of(fourths[..., k]) for k in range(matrix.shape[1])))
            for name, of in (("bulk ESS", bulk_ess), ("tail ESS", tail_ess))
        },
    }


def _exact(problem, posterior):
    """What exact draws tell."""
    import numpy as np

    from thalweg.targets import log_density_of_rows

    exact = problem.draw(np.random.default_rng(1), DRAWS["problems"])
    log_q = np.asarray(posterior.log_prob({"x": exact}), float)
    ratio = np.asarray(log_density_of_rows(problem.target, exact), float) - log_q
    # under p, 1 / w has mean 1 / Z: its effective share is the forward one
    eubo = float(ratio.mean()) - problem.log_evidence
    return {"EUBO": eubo, "forward effective share": _share(-ratio)}


WITHOUT = "without "
"""Before the name of a rung: the defaults less that one."""


def _leave_out(rung):
    """Climb without one rung, in this process."""
    from thalweg.ladder import RUNGS, Climb

    left = tuple(r for r in RUNGS if r.name != rung)
    if len(left) == len(RUNGS):
        raise SystemExit(f"benchmarks: `rung` must be one of {', '.join(r.name for r in RUNGS)}, got {rung}")
    # `thalweg.infer` is the function
    sys.modules["thalweg.infer"].Climb = functools.partial(Climb, rungs=left)


def _infer(suite, name, seed, start):
    """One fit by the defaults, in numbers."""
    import thalweg as tw

    target, columns, mean, sd, log_evidence, problem = _load(suite, name)
    n = DRAWS.get(suite, 10_000)
    prepared = time.perf_counter()
    posterior = tw.infer(target, seed=seed, progress=False)
    draws = posterior.resample(n, seed=1)
    cold = time.time() - start
    first = time.perf_counter() - prepared
    verdict, evidence, elbo = posterior.verdict, posterior.log_evidence, posterior.elbo
    out = {
        "ok": verdict.ok,
        "raw ok": verdict.raw_ok,
        "k-hat": verdict.khat,
        "R-hat": verdict.rhat,
        "effective": verdict.ess,
        "of": verdict.n_draws,
        "cold seconds": cold,
        "first seconds": first,
        "evaluations": posterior.settings["evaluations"],
        "steps taken": list(posterior.steps_taken),
        "reasons": list(verdict.reasons),
    }
    if columns is not None:
        out |= _errors(columns(draws), mean, sd)
    if evidence is not None:
        out |= {"log Z": evidence.value, "log Z standard error": evidence.standard_error}
        if log_evidence is not None:
            out["log Z error"] = evidence.value - log_evidence
            out["ELBO error"] = None if elbo is None else elbo.value - log_evidence
        if problem is not None:
            out |= _exact(problem, posterior)
    if problem is not None:
        out |= _against_exact(problem, draws["x"])
    again = time.perf_counter()
    tw.infer(target, seed=seed + 100, progress=False).resample(n, seed=1)
    return out | {"warm seconds": time.perf_counter() - again, "memory MB": _memory()}


def _compete(method, suite, name, seed, start):
    """One fit by another's method, on the same density."""
    import jax
    import numpy as np

    from benchmarks._competitors import METHODS

    target, columns, mean, sd, log_evidence, problem = _load(suite, name)
    n = DRAWS.get(suite, 10_000)
    prepared = time.perf_counter()
    fit = METHODS[method](target, n)
    u, known = fit(seed)
    draws = {k: np.asarray(v) for k, v in jax.vmap(lambda u: target.constrain(u)[0])(u).items()}
    out = {"cold seconds": time.time() - start, "first seconds": time.perf_counter() - prepared, **known}
    if columns is not None:
        out |= _errors(columns(draws), mean, sd)
    if log_evidence is not None:
        out |= {f"{k} error": known[k] - log_evidence for k in ("log Z", "ELBO") if k in known}
    if problem is not None:
        out |= _against_exact(problem, draws["x"])
    again = time.perf_counter()
    fit(seed + 100)
    return out | {"warm seconds": time.perf_counter() - again, "memory MB": _memory()}


def _memory():
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _against_exact(problem, x):
    """Modes that draws cover, and how far they are from exact ones, in exact sd."""
    import numpy as np

    rng = np.random.default_rng(2)
    exact = problem.draw(rng, len(x))
    ways = rng.standard_normal((_WAYS, x.shape[1]))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    scale = exact.std(0)
    ours, theirs = (np.sort((y / scale) @ ways.T, axis=0) for y in (x, exact))
    return {"coverage": problem.coverage(x), "sliced Wasserstein": float(np.abs(ours - theirs).mean())}


def _plain(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(method, suite, name, seed):
    """One cell, in a process of its own."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-m", "benchmarks.accuracy", "--cell", method, suite, name, str(seed), str(time.time())]
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {LIMIT} s"}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def _run(suite, only, seeds, methods):
    """What is missing of a suite."""
    if suite != "problems":
        data_folder()  # before a cell fails without it
    path = RESULTS / f"accuracy-{suite}.json"
    cells = json.loads(path.read_text())["cells"] if path.exists() else {}
    for name in [n for n in names(suite) if not only or n in only]:
        for seed, method in itertools.product(seeds, methods):
            of = cells.setdefault(name, {}).setdefault(method, {})
            if str(seed) not in of:
                of[str(seed)] = {**cell(method, suite, name, seed), "commit": commit(), "processor": processor()}
                result = {"draws": DRAWS.get(suite, 10_000), "cells": cells}
                write(f"accuracy-{suite}", ["thalweg", "jax", "jaxlib", "numpy", "numpyro"], result)


def main():
    """Run what is missing and write after every cell."""
    if sys.argv[1:2] == ["--cell"]:
        method, suite, name, seed, start = sys.argv[2:]
        where = suite, name, int(seed), float(start)
        if method.startswith(WITHOUT):
            _leave_out(method.removeprefix(WITHOUT))
        ours = method == "thalweg" or method.startswith(WITHOUT)
        out = _infer(*where) if ours else _compete(method, *where)
        print(json.dumps({k: _plain(v) for k, v in out.items()}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="*", choices=SUITES, default=SUITES)
    parser.add_argument("--only", nargs="*", default=[], help="names of cells")
    parser.add_argument("--methods", nargs="*", default=[], help="thalweg, or names of benchmarks._competitors.METHODS")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    chosen = parser.parse_args()
    for suite in chosen.suite:
        _run(suite, chosen.only, chosen.seeds, chosen.methods or COMPETITORS.get(suite, ("thalweg",)))


if __name__ == "__main__":
    main()

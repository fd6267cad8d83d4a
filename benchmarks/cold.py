"""The demo's command as a whole process, from start to four files written, against NumPyro's NUTS on the same model.

Ours with an empty compile cache, and again with the cache that it left; NUTS 4 x (1000 + 1000) with each chain method,
without a compile cache, as NumPyro comes (it writes nothing). "sequential" is what NumPyro does by default on one
device, and compiles for every chain; "parallel" asks for 4 devices of the host. Rounds alternate; the medians of the
rounds' ratios are quoted. And what `import thalweg` costs over `import jax`, and a second fit in one process.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._record import spread, write

ROUNDS = 5
ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "eight_schools"


def run(command, cache=None):
    """Wall seconds of one process, with a folder for compiled programs or none."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    if cache is not None:
        env["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, done.stdout


def main():
    """Measure and write."""
    methods = ("sequential", "vectorized", "parallel")
    rounds, summary = [], {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            out, cache = Path(folder) / "run", Path(folder) / "cache"
            ours = [str(Path(sys.executable).parent / "thalweg"), "infer", str(EXAMPLE / "model.py")]
            ours += ["--data", str(EXAMPLE / "data.json"), "--out", str(out), "--quiet"]
            times = {"thalweg cold": run(ours, cache)[0], "thalweg cached": run(ours, cache)[0]}
            summary = json.loads((out / "summary.json").read_text())
            for method in methods:
                nuts = [sys.executable, "-m", "benchmarks.nuts_eight_schools", method]
                times[f"NUTS {method}"] = run(nuts)[0]
        for module in ("jax", "thalweg"):
            times[f"import {module}"] = run([sys.executable, "-c", f"import {module}"])[0]
        times["second fit, other data"] = float(run([sys.executable, "-m", "benchmarks._second_fit"])[1])
        rounds.append(times)
    names = ("thalweg cold", "thalweg cached")
    result = {
        "unit": "wall seconds of the whole process",
        "seed": 0,
        "seconds": {name: spread([r[name] for r in rounds]) for name in rounds[0]},
        "ratio": {
            f"{name} / NUTS {method}": spread([r[name] / r[f"NUTS {method}"] for r in rounds])
            for name in names
            for method in methods
        },
        "import thalweg less import jax": spread([r["import thalweg"] - r["import jax"] for r in rounds]),
        "largest process, MB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "verdict": summary["verdict"]["sentence"],
        "steps taken": summary["steps_taken"],
    }
    write("cold", ["thalweg", "numpyro", "jax", "jaxlib", "equinox", "optax", "numpy"], result)


if __name__ == "__main__":
    main()

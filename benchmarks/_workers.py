"""Sides measured in turn: each a process of its own that lives through the run and is asked over a pipe.

Every library has its own process, so that neither threads nor memory are shared and the largest memory is its own; one
is asked at a time, and the order is turned round from round to round, so that drift of the machine falls on all alike.

A script holds `SIDES`, name -> maker; a maker takes the setting (a dict that JSON can hold) and gives a `Side`.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._record import spread

ROOT = Path(__file__).parents[1]
QUICK = "--quick" in sys.argv
"""Few short rounds, for trying; the result goes to `.benchmarks`, which git passes over."""
FLOOR = "products alone"
"""Name of the side that does the conditioners' matrix products and nothing else (`benchmarks._products`)."""


class Side(NamedTuple):
    """What is measured.

    Attributes:
        run: (n) does the work n times and waits for it; what it gives, a dict or None, is recorded (the last one).
        about: what a reader must know to compare: number of parameters, what differs.
        fixed: the n to ask for always, where the pace does not set it.
    """

    run: Callable[[int], Any]
    about: dict[str, Any]
    fixed: int | None = None


class Plan(NamedTuple):
    """How often and how long.

    Attributes:
        rounds: measurements of each side.
        seconds: about how long one of them lasts.
        warm: repetitions of the first, unmeasured call, which compiles.
    """

    rounds: int = 2 if QUICK else 5
    seconds: float = 0.3 if QUICK else 1.0
    warm: int = 10


def count(tree: Any) -> int:
    """Trainable numbers of a JAX module."""
    import equinox as eqx
    import jax

    return sum(x.size for x in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)))


def count_torch(module: Any) -> int:
    """Trainable numbers of a torch module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _peak_mb() -> float:
    """The largest resident memory of this process so far."""
    # getrusage's figure survives exec: a small child of a large parent would report the parent
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _serve(script: str, name: str, setting: dict[str, Any]) -> None:
    """The worker: build, then answer each number n on stdin with one line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get into the pipe

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    start = time.perf_counter()
    side = importlib.import_module(script).SIDES[name](setting)
    built = time.perf_counter() - start
    answer({"build seconds": built, "about": side.about, "fixed": side.fixed})
    for line in sys.stdin:
        start = time.perf_counter()
        found = side.run(int(line))
        seconds = time.perf_counter() - start
        answer({"seconds": seconds, "found": found, "peak MB": _peak_mb()})


class _Worker:
    """The asking end."""

    def __init__(self, script: str, name: str, setting: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "benchmarks._workers", script, name, json.dumps(setting)]
        # nothing found compiled, whatever the caller's shell says
        env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        self.name = name
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"benchmarks: the worker {self.name!r} died (its message is above)")
        return json.loads(line)

    def ask(self, n: int) -> dict[str, Any]:
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def measure(script: str, sides: list[str], setting: dict[str, Any], plan: Plan | None = None) -> dict[str, Any]:
    """Seconds of one repetition, side by side.

    Args:
        script: module that holds `SIDES`.
        sides: names in it.
        setting: for the makers.
        plan: rounds and lengths.

    Returns:
        name -> {"seconds": one a round, "repetitions", "seconds to the first result", "peak MB", "about", "found"};
        rounds are in step, so that the i-th figures of two sides may be divided.
    """
    plan = plan or Plan()
    workers, n, out = [], {}, {}
    try:
        for name in sides:
            worker = _Worker(script, name, setting)
            workers.append(worker)
            hello = worker.read()
            first = worker.ask(hello["fixed"] or plan.warm)
            n[name] = hello["fixed"] or plan.warm
            second = first if hello["fixed"] else worker.ask(plan.warm)
            if hello["fixed"] is None:
                n[name] = max(plan.warm, round(plan.seconds * plan.warm / second["seconds"]))
                if n[name] > plan.warm:
                    worker.ask(n[name])  # a loop of another length may compile something small
            out[name] = {
                "seconds": [],
                "repetitions": n[name],
                "seconds to the first result": hello["build seconds"] + first["seconds"],
                "about": hello["about"],
            }
        for i in range(plan.rounds):
            for worker in workers if i % 2 == 0 else workers[::-1]:
                reply = worker.ask(n[worker.name])
                side = out[worker.name]
                side["seconds"].append(reply["seconds"] / n[worker.name])
                side["peak MB"], side["found"] = reply["peak MB"], reply["found"]
    finally:
        for worker in workers:
            worker.close()
    return out


def table(measured: dict[str, Any], *, unit: float, key: str, against: str = "thalweg") -> dict[str, Any]:
    """What is written of a measurement: `key` a repetition, ratios round by round, and what is known of each side.

    Args:
        measured: what `measure` gives.
        unit: what a second is multiplied by.
        key: name of that unit.
        against: the side that the others are divided by.
    """
    ours = measured[against]["seconds"]

    def ratios(name: str) -> dict[str, float]:
        return spread([a / b for a, b in zip(measured[name]["seconds"], ours, strict=True)])

    result = {
        key: {n: spread([s * unit for s in m["seconds"]]) for n, m in measured.items()},
        f"ratio to {against}": {n: ratios(n) for n in measured if n not in (against, FLOOR)},
    }
    if FLOOR in measured:
        result[f"{FLOOR}, share of {against}"] = ratios(FLOOR)
    for field in ("peak MB", "seconds to the first result", "repetitions", "about", "found"):
        result[field] = {n: m[field] for n, m in measured.items() if m[field] is not None}
    return result


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))

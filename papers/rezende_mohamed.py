"""Rezende and Mohamed 2015, Variational inference with normalizing flows: figures 1 and 3, Table 1, the cost claim."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from papers._harness import Arrays, Cell, Drawing, Numbers, Paper, spread, table
from papers._measure import forward, grid, log_prob_of_rows, picture, reverse
from papers._plots import curves, densities, new_figure
from thalweg.bijections import (
    AdditiveTransformer,
    Chain,
    Coupling,
    Permutation,
    Planar,
    Radial,
    Scan,
    SplineTransformer,
    random_orthogonal,
)
from thalweg.distributions import Normal, StandardNormal, Transformed, UniformBox
from thalweg.fit import Fit
from thalweg.objectives import Annealing, ReverseKL
from thalweg.problems import energy
from thalweg.run import run

ENERGIES, FLOWS, LENGTHS = (1, 2, 3, 4), ("planar", "radial", "nice-perm", "nice-orth", "spline"), (2, 8, 32)
BASES, KINDS, MAPS = ("normal", "uniform"), ("planar", "radial"), (1, 2, 10)
SIZES, DEPTHS = tuple(2**k for k in range(1, 11)), (1, 2, 4, 8, 16, 32, 64)
STEPS = {"smoke": 20, "laptop": 10_000, "paper": 500_000}
DRAWS = {"smoke": 64, "laptop": 128, "paper": 100}
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "paper": (0, 1, 2)}
REACH = 4.0
_MOVED = 0.8
"""The spread of the numbers of the maps of the first figure."""
_EXACT, _WEIGHED = 20_000, 100_000
_WINDOW = "U2 to U4, which have no evidence, are multiplied by the window exp(-(z1/4)^8)"
_ADAM = "Adam, at 0.01 with a warm-up and a cosine to 0, in place of RMSprop at 1e-5 with momentum 0.9"
DEVIATIONS = {
    scale: (
        _WINDOW,
        "q_0 is a normal with trainable means and scales",
        _ADAM,
        f"{STEPS[scale]:,} updates of {DRAWS[scale]} draws, the log density annealed over the first fifth; the paper "
        "names 500,000 updates for its images, none for this figure",
        "NICE's networks have two hidden layers of 32 units",
    )
    for scale in STEPS
}


def _map(base: str, kind: str, length: int) -> tuple[Numbers, Arrays]:
    """A base through maps of random numbers: its density, mass and log-determinant, checked."""
    rng = np.random.default_rng([length, len(kind), len(base)])
    layers = [(Planar if kind == "planar" else Radial)(2, seed=rng) for _ in range(length)]
    shaken = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + _MOVED * rng.standard_normal(leaf.shape), leaf.dtype),
        eqx.filter(layers, eqx.is_inexact_array),
    )
    stack = Scan(eqx.combine(shaken, eqx.filter(layers, eqx.is_inexact_array, inverse=True)))
    start = StandardNormal((2,)) if base == "normal" else UniformBox([-2.0, -2.0], [2.0, 2.0])
    q = Transformed(start, stack)
    points, area = grid(12.0, 800)
    mass = float(np.exp(log_prob_of_rows(q, points, 20_000)).sum() * area)
    z = jnp.asarray(rng.uniform(-2, 2, (50, 2)))
    dense = jnp.linalg.slogdet(jax.vmap(jax.jacfwd(stack.forward))(z))[1]
    own = jax.vmap(stack.forward_and_log_det)(z)[1]
    numbers = {"mass": mass, "log-determinant error": float(jnp.abs(dense - own).max())}
    return numbers, {"density": picture(functools.partial(log_prob_of_rows, q), REACH)}


def _layers(flow: str, length: int, rng: np.random.Generator) -> list[Any]:
    if flow in KINDS:
        return [(Planar if flow == "planar" else Radial)(2, seed=rng) for _ in range(length)]
    if flow == "spline":
        return [
            Chain([Permutation(np.array([1, 0])), Coupling(2, SplineTransformer(), width=32, seed=rng)])
            for _ in range(length)
        ]
    layers = []
    for _ in range(length):
        mixed = random_orthogonal(2, rng) if flow == "nice-orth" else Permutation(np.array([1, 0]))
        layers.append(Chain([mixed, Coupling(2, AdditiveTransformer(), width=32, seed=rng)]))
    return layers


def _target(k: int) -> tuple[Numbers, Arrays]:
    problem = energy(k)
    log_density = jax.jit(jax.vmap(problem.target.log_density))
    return {"log Z": problem.log_evidence}, {"density": picture(lambda x: log_density(jnp.asarray(x)), REACH)}


def _fit(k: int, flow: str, length: int, seed: int, scale: str) -> tuple[Numbers, Arrays]:
    problem, steps = energy(k), STEPS[scale]
    rng = np.random.default_rng(seed)
    q = Transformed(Normal(np.zeros(2), np.ones(2)), Scan(_layers(flow, length, rng)))
    annealing = Annealing(max(1, steps // 5))
    process = Fit(ReverseKL(problem.target, n_draws=DRAWS[scale], annealing=annealing), window=None, chunk=500)
    fitted = run(process, process.init(q), jax.random.key(seed), steps=steps).state.model
    exact = problem.draw(np.random.default_rng(1), _EXACT)
    log_q = log_prob_of_rows(fitted, exact)
    numbers = {**reverse(fitted, problem, _WEIGHED), **forward(log_q, problem, exact)}
    numbers["parameters"] = sum(x.size for x in jax.tree.leaves(eqx.filter(fitted, eqx.is_inexact_array)))
    return numbers, {"density": picture(functools.partial(log_prob_of_rows, fitted), REACH)} if seed == 0 else {}


def _seconds(function: Any, *args: Any) -> float:
    """Of a call, the least of some."""
    compiled = eqx.filter_jit(function)
    jax.block_until_ready(compiled(*args))
    found = []
    for _ in range(7):
        repeats, start = 0, time.perf_counter()
        while repeats == 0 or time.perf_counter() - start < 0.05:
            jax.block_until_ready(compiled(*args))
            repeats += 1
        found.append((time.perf_counter() - start) / repeats)
    return min(found)


def _cost(scale: str) -> tuple[Numbers, Arrays]:
    """Seconds of 64 log-determinants: a planar map's own, a dense Jacobian's; and of K maps."""
    sizes, depths = (SIZES[:2], DEPTHS[:2]) if scale == "smoke" else (SIZES, DEPTHS)
    own, dense, deep = [], [], []
    for d in sizes:
        z, layer = jnp.asarray(np.random.default_rng(0).standard_normal((64, d)), jnp.float32), Planar(d, seed=0)
        own.append(_seconds(lambda f, z: jax.vmap(f.forward_and_log_det)(z)[1], layer, z))
        if d <= 256:
            dense.append(_seconds(lambda f, z: jnp.linalg.slogdet(jax.vmap(jax.jacfwd(f.forward))(z))[1], layer, z))
    d = 64
    z = jnp.asarray(np.random.default_rng(0).standard_normal((64, d)), jnp.float32)
    for k in depths:
        stack = Scan([Planar(d, seed=s) for s in range(k)])
        deep.append(_seconds(lambda f, z: jax.vmap(f.forward_and_log_det)(z)[1], stack, z))
    return {
        "D": list(sizes),
        "own seconds": own,
        "dense D": list(sizes[: len(dense)]),
        "dense seconds": dense,
        "K": list(depths),
        "K seconds": deep,
    }, {}


def _cells(scale: str) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    smoke = scale == "smoke"
    for base in BASES:
        for kind in KINDS:
            for length in MAPS[: 1 if smoke else None]:
                cells[f"map-{base}-{kind}-{length}"] = functools.partial(_map, base, kind, length)
    energies, flows, lengths = ((1,), ("planar", "nice-perm"), (2,)) if smoke else (ENERGIES, FLOWS, LENGTHS)
    for k in energies:
        cells[f"energy-{k}"] = functools.partial(_target, k)
    for seed in SEEDS[scale]:
        for k in energies:
            for flow in flows:
                for length in lengths:
                    name = f"energy-{k}-{flow}-{length}-{seed}"
                    cells[name] = functools.partial(_fit, k, flow, length, seed, scale)
    cells["cost"] = functools.partial(_cost, scale)
    return cells


def _of(cells: Numbers, k: int, flow: str, length: int) -> list[Numbers]:
    return [c for n, c in cells.items() if n.startswith(f"energy-{k}-{flow}-{length}-")]


def _figures(record: Numbers) -> list[Drawing]:
    cells, found = record["cells"], []
    maps = [length for length in MAPS if f"map-normal-planar-{length}" in cells]
    table_of_maps = [[f"map-{b}-{kind}-{n}" for kind in KINDS for n in maps] for b in BASES]
    titles = [f"{kind}, K = {n}" for kind in KINDS for n in maps]
    found.append(_pictures("maps", table_of_maps, titles, list(BASES)))

    energies = [k for k in ENERGIES if f"energy-{k}" in cells]
    shown = [(f, n) for f in FLOWS for n in LENGTHS if all(f"energy-{k}-{f}-{n}-0" in cells for k in energies)]
    longest = max((n for _, n in shown), default=0)
    for name, columns in {
        "planar": [one for one in shown if one[0] == "planar"],
        "flows": [one for one in shown if one[1] == longest],
    }.items():
        names = [[f"energy-{k}", *(f"energy-{k}-{f}-{n}-0" for f, n in columns)] for k in energies]
        under = [["", *(f"KL {cells[n]['KL']:.3f}" for n in row[1:])] for row in names]
        titles = ["target", *(f"{f}, K = {n}" for f, n in columns)]
        found.append(_pictures(name, names, titles, [f"U{k}" for k in energies], under))
    if "cost" in cells:
        found.append(Drawing("rezende-mohamed-cost", (), lambda _: _costs(cells["cost"])))
    return found


def _pictures(
    name: str, cells: list[list[str]], across: list[str], down: list[str], under: list[list[str]] | None = None
) -> Drawing:
    def draw(read: Callable[[str], Arrays]) -> Figure:
        return densities([[read(n)["density"] for n in row] for row in cells], across, down, under)

    return Drawing(f"rezende-mohamed-{name}", tuple(n for row in cells for n in row), draw)


def _costs(cost: Numbers) -> Figure:
    figure = new_figure(6.4, 2.5)
    left, right = figure.subplots(1, 2)
    lines = {"planar's own": (cost["D"], cost["own seconds"]), "dense": (cost["dense D"], cost["dense seconds"])}
    curves(left, lines, x="D", y="seconds, 64 log-determinants")
    curves(right, {"K planar maps, D = 64": (cost["K"], cost["K seconds"])}, x="K", y="seconds")
    return figure


def _slope(across: list[float], up: list[float]) -> float:
    """Of the logarithms, over the upper half, where overheads no longer count."""
    half = len(across) // 2
    return float(np.polyfit(np.log(across[half:]), np.log(up[half:]), 1)[0]) if len(across) - half > 1 else math.nan


def _section(record: Numbers) -> str:
    cells = record["cells"]
    maps = [c for n, c in cells.items() if n.startswith("map-")]
    rows = []
    for k in ENERGIES:
        for flow in FLOWS:
            for length in LENGTHS:
                found = _of(cells, k, flow, length)
                if found:
                    three = [spread([c[key] for c in found], digits) for key, digits in (("KL", 4), ("forward KL", 4))]
                    error = max(abs(c["log Z error"]) for c in found)
                    seconds = np.median([c["seconds"] for c in found])
                    rows.append(
                        [
                            f"U{k}",
                            flow,
                            str(length),
                            str(found[0]["parameters"]),
                            *three,
                            f"{error:.4f}",
                            f"{seconds:.0f}",
                        ]
                    )
    parts = [
        "The paper shows pictures of its energies and gives no numbers: published values are absent, not left out.",
        "",
        "**Figure 1.** Maps of both bases with random numbers. Mass on a grid: "
        f"{min(c['mass'] for c in maps):.4f} to {max(c['mass'] for c in maps):.4f}; largest error of a "
        f"log-determinant against a dense Jacobian's: {max(c['log-determinant error'] for c in maps):.1e}.",
        "",
        "**Table 1 and figure 3.** Medians over seeds (range); KL is KL(q || p) from 100,000 draws, the forward one "
        "from 20,000 exact draws, log Z the largest error by importance sampling against the grid's. Under the "
        "pictures stands the KL of the fit that is shown.",
        "",
        table(["energy", "flow", "K", "parameters", "KL", "forward KL", "log Z error", "seconds"], rows),
    ]
    if "cost" in cells:
        cost = cells["cost"]
        parts += [
            "",
            f"**Cost.** Seconds grow as D^{_slope(cost['D'], cost['own seconds']):.2f} for a planar map's own "
            f"log-determinant, as D^{_slope(cost['dense D'], cost['dense seconds']):.2f} for a dense Jacobian's, and "
            f"as K^{_slope(cost['K'], cost['K seconds']):.2f} in the number of maps (upper half of the range each).",
        ]
    return "\n".join(parts)


PAPER = Paper(
    name="rezende-mohamed",
    title="Rezende and Mohamed 2015: Variational inference with normalizing flows",
    deviations=DEVIATIONS,
    cells=_cells,
    figures=_figures,
    section=_section,
)

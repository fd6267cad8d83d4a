"""Kingma et al. 2016, Improving variational inference with inverse autoregressive flow: what drawing and scoring cost.

Images and their tables belong to amortized inference; here is the trade-off: flows that draw in one pass and score in
d, or the other way round, and what that means for the divergence that one can afford to fit by.
"""

import functools
import importlib.util
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks._record import spread as summary
from benchmarks._workers import FLOOR, Plan, measure
from jax.scipy.stats import norm
from matplotlib.figure import Figure

import thalweg as tw
from papers._harness import Arrays, Cell, Drawing, Numbers, Paper, spread, table
from papers._kingma_sides import DEAR, KINDS, LAYERS, LEAST_WIDTH, POINTS, SIDES, present
from papers._measure import forward, histogram, log_prob_of_rows, reverse
from papers._plots import curves, densities, new_figure
from thalweg.bijections import AbstractBijection, Affine, Chain, Reshape, TriangularAffine
from thalweg.distributions import StandardNormal, Transformed
from thalweg.fit import Fit
from thalweg.objectives import ForwardKL, ReverseKL
from thalweg.problems import Problem
from thalweg.run import run

WHATS, SIZES = ("draws", "densities"), {"smoke": (8,), "laptop": (8, 16, 32, 64, 128, 256, 512, 1024)}
SIZES["paper"] = SIZES["laptop"]
PATIENCE = {"smoke": 8, "laptop": 128, "paper": 256}
"""The largest d at which others are asked for the direction that takes d passes: their seconds grow as d^3."""
D, SD = 8, 0.5
FAMILIES = ("mean field", "structured mean field", "full-rank Gaussian", "realnvp", "maf", "iaf")
OBJECTIVES = ("reverse", "forward")
STEPS, DRAWS = {"smoke": 20, "laptop": 5000, "paper": 20_000}, {"smoke": 32, "laptop": 256, "paper": 256}
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "paper": (0, 1, 2)}
_EXACT, _WEIGHED = 20_000, 100_000
DEVIATIONS = {
    scale: (
        f"{POINTS:,} points at a time; {LAYERS} layers with two hidden layers of max(d, {LEAST_WIDTH}) units, affine, "
        "a normal base; the paper times images drawn by a ResNet VAE on a GPU, which this does not repeat",
        f"others invert a masked network to d = {PATIENCE[scale]} alone",
        f"fits of {STEPS[scale]:,} steps of {DRAWS[scale]} draws, the same for all",
        "TensorFlow Probability 0.25's JAX substrate does not import beside JAX 0.10 and is absent",
    )
    for scale in STEPS
}


class Blocks(AbstractBijection):
    """Full-rank affine maps of pairs of coordinates, each with numbers of its own."""

    map: TriangularAffine
    context_shape = None
    forward_cost = inverse_cost = "direct"

    def __init__(self, n: int) -> None:
        self.map = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), TriangularAffine(np.zeros(2), np.eye(2))
        )

    @property
    def in_shape(self) -> tuple[int, int]:
        """(n, 2)."""
        return D // 2, 2

    @property
    def out_shape(self) -> tuple[int, int]:
        """(n, 2)."""
        return self.in_shape

    def _forward_and_log_det(self, x: Any, context: Any) -> tuple[Any, Any]:
        y, log_det = jax.vmap(lambda f, x: f._forward_and_log_det(x, None))(self.map, x)
        return y, log_det.sum()

    def _inverse_and_log_det(self, y: Any, context: Any) -> tuple[Any, Any]:
        x, log_det = jax.vmap(lambda f, y: f._inverse_and_log_det(y, None))(self.map, y)
        return x, log_det.sum()


def _chain() -> Problem:
    """x_1 ~ N(0, 1), each further one a normal about half the last one's square less one: a row of bananas."""

    def log_density(p: dict[str, Any]) -> Any:
        x = p["x"]
        return norm.logpdf(x[0]) + norm.logpdf(x[1:], 0.5 * (x[:-1] ** 2 - 1), SD).sum()

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        x = rng.standard_normal((n, D)) * np.r_[1.0, np.full(D - 1, SD)]
        for i in range(1, D):
            x[:, i] += 0.5 * (x[:, i - 1] ** 2 - 1)
        return x

    return Problem("chain of bananas", tw.from_function(log_density, {"x": tw.real(D)}), 0.0, draw)


def _build(family: str, seed: int) -> Any:
    base = StandardNormal((D,))
    if family == "mean field":
        return Transformed(base, Affine(np.zeros(D), np.ones(D)))
    if family == "structured mean field":
        pairs = Reshape((D,), (D // 2, 2))
        return Transformed(base, Chain([pairs, Blocks(D // 2), Reshape((D // 2, 2), (D,))]))
    if family == "full-rank Gaussian":
        return Transformed(base, TriangularAffine(np.zeros(D), np.eye(D)))
    return tw.make_flow(family, D, layers=6, seed=seed)


def _fit(objective: str, family: str, seed: int, scale: str) -> tuple[Numbers, Arrays]:
    problem, n = _chain(), DRAWS[scale]
    if objective == "reverse":
        minimised = ReverseKL(problem.target, n_draws=n)
    else:
        minimised = ForwardKL(problem.draw(np.random.default_rng([seed, 7]), 100_000), batch_size=n)
    process = Fit(minimised, learning_rate=3e-3, window=None, chunk=100)
    fitted = run(process, process.init(_build(family, seed)), jax.random.key(seed), steps=STEPS[scale]).state.model
    exact = problem.draw(np.random.default_rng(1), _EXACT)
    draws = np.asarray(jax.jit(lambda key: fitted.sample(key, _WEIGHED))(jax.random.key(1)))
    numbers = {
        **reverse(fitted, problem, _WEIGHED),
        **forward(log_prob_of_rows(fitted, exact), problem, exact),
        "narrowest": float((draws.std(0) / exact.std(0)).min()),
    }
    return numbers, {"density": histogram(draws[:, :2], 4.0, 80)} if seed == 0 else {}


def _truth() -> tuple[Numbers, Arrays]:
    return {}, {"density": histogram(_chain().draw(np.random.default_rng(2), _WEIGHED)[:, :2], 4.0, 80)}


def _sides(what: str, d: int, scale: str) -> list[str]:
    return [
        n for n in SIDES if present(n) and (not _is_slow(n, what) or n.startswith("thalweg") or d <= PATIENCE[scale])
    ]


def _is_slow(side: str, what: str) -> bool:
    return side.endswith(DEAR[what])


def _cost(what: str, d: int, scale: str) -> tuple[Numbers, Arrays]:
    plan = Plan(rounds=1, seconds=0.01, warm=1) if scale == "smoke" else Plan(rounds=5, seconds=0.5, warm=2)
    setting = {"what": what, "d": d, "points": 20 if scale == "smoke" else POINTS}
    sides = _sides(what, d, scale)
    measured = measure("papers._kingma_sides", sides[:1] + sides[-1:] if scale == "smoke" else sides, setting, plan)
    return {
        "milliseconds": {n: summary([1000 * s for s in m["seconds"]]) for n, m in measured.items()},
        "peak MB": {n: m["peak MB"] for n, m in measured.items()},
        "parameters": {n: m["about"].get("parameters") for n, m in measured.items()},
    }, {}


def _cells(scale: str) -> dict[str, Cell]:
    smoke = scale == "smoke"
    cells: dict[str, Cell] = {
        f"{what}-{d}": functools.partial(_cost, what, d, scale) for d in SIZES[scale] for what in WHATS
    }
    cells["truth"] = _truth
    for seed in SEEDS[scale]:
        for family in ("mean field", "iaf") if smoke else FAMILIES:
            for objective in OBJECTIVES:
                name = f"{objective}-{family.replace(' ', '_')}-{seed}"
                cells[name] = functools.partial(_fit, objective, family, seed, scale)
    return cells


def _series(cells: Numbers, what: str, names: list[str]) -> dict[str, tuple[list[int], list[float]]]:
    """Of each side, (d, milliseconds)."""
    found = {}
    for name in names:
        known = [
            (d, c["milliseconds"][name]["median"])
            for d in SIZES["laptop"]
            if (c := cells.get(f"{what}-{d}")) and name in c["milliseconds"]
        ]
        if known:
            found[name] = ([d for d, _ in known], [s for _, s in known])
    return found


def _costs(cells: Numbers) -> Figure:
    figure = new_figure(7.2, 5.2)
    for row, what in zip(figure.subplots(2, 2), WHATS, strict=True):
        own = [*(f"thalweg {kind}" for kind in KINDS), FLOOR]
        dear = [n for n in SIDES if _is_slow(n, what)]
        for ax, names, title in zip(row, (own, dear), (what, f"{what} of {DEAR[what].upper()}s"), strict=True):
            curves(ax, _series(cells, what, names), x="d", y=f"milliseconds, {POINTS:,} {what}")
            ax.set_title(title, fontsize=8)
    return figure


def _figures(record: Numbers) -> list[Drawing]:
    cells = record["cells"]
    found = [Drawing("kingma-costs", (), lambda _: _costs(cells))]
    shown = [f for f in FAMILIES if all(f"{o}-{f.replace(' ', '_')}-0" in cells for o in OBJECTIVES)]
    names = [["truth", *(f"{o}-{f.replace(' ', '_')}-0" for f in shown)] for o in OBJECTIVES]
    under = [["", *(f"KL {cells[n]['KL']:.3f}" for n in row[1:])] for row in names]
    if shown and "truth" in cells:
        found.append(
            Drawing(
                "kingma-fits",
                tuple(dict.fromkeys(n for row in names for n in row)),
                lambda read: densities(
                    [[read(n)["density"] for n in row] for row in names],
                    ["truth", *shown],
                    [f"{o} KL" for o in OBJECTIVES],
                    under,
                ),
            )
        )
    return found


def _rows_of_costs(cells: Numbers, what: str) -> list[list[str]]:
    sizes = [d for d in SIZES["laptop"] if f"{what}-{d}" in cells]
    rows = []
    for name in SIDES:
        at = [cells[f"{what}-{d}"]["milliseconds"].get(name) for d in sizes]
        if any(at):
            rows.append([name, *("" if one is None else f"{one['median']:.3g}" for one in at)])
    return [["", *map(str, sizes)], *rows]


def _growth(cells: Numbers, what: str, name: str) -> float:
    """The exponent of d in seconds over those of products alone, from d = 64 on."""
    series = _series(cells, what, [name, FLOOR])
    if name not in series or FLOOR not in series:
        return math.nan
    (sizes, ours), (_, floor) = series[name], series[FLOOR]
    known = [(d, a / b) for d, a, b in zip(sizes, ours, floor, strict=False) if d >= LEAST_WIDTH]
    if len(known) < 2:
        return math.nan
    return float(np.polyfit(np.log([d for d, _ in known]), np.log([r for _, r in known]), 1)[0])


def _section(record: Numbers) -> str:
    cells, parts = record["cells"], []
    for what in WHATS:
        head, *rows = _rows_of_costs(cells, what)
        parts += [f"**{POINTS:,} {what}**, milliseconds (medians of rounds in turn), by d.", "", table(head, rows), ""]
    parts += [
        "From d = 64 on, seconds over those of the networks' products alone grow as d to the power "
        f"{_growth(cells, 'draws', 'thalweg iaf'):+.2f} (draws of an IAF), "
        f"{_growth(cells, 'densities', 'thalweg maf'):+.2f} (densities of a MAF), "
        f"{_growth(cells, 'densities', 'thalweg iaf'):+.2f} (densities of an IAF, by sweeps).",
        "",
        "**Peak memory**, MB of the whole process at the largest d: "
        + "; ".join(
            f"{what}: " + ", ".join(f"{n} {mb:.0f}" for n, mb in cells[f"{what}-{d}"]["peak MB"].items())
            for what in WHATS
            if (d := max((d for d in SIZES["laptop"] if f"{what}-{d}" in cells), default=0))
        )
        + ".",
        "",
        f"**Both divergences, one target** (a chain of bananas, d = {D}, log Z = 0): medians over seeds (range). KL is "
        f"KL(q || p) from {_WEIGHED:,} draws, the forward one from {_EXACT:,} exact draws; narrowest is the least "
        "ratio of a fit's sd to the exact one.",
        "",
    ]
    rows = []
    for family in FAMILIES:
        for objective in OBJECTIVES:
            start = f"{objective}-{family.replace(' ', '_')}-"
            found = [c for n, c in cells.items() if n.startswith(start)]
            if found:
                numbers = [spread(c[key] for c in found) for key in ("KL", "forward KL", "narrowest")]
                rows.append([family, objective, *numbers, f"{np.median([c['seconds'] for c in found]):.0f}"])
    parts.append(table(["family", "fitted by", "KL", "forward KL", "narrowest", "seconds"], rows))
    return "\n".join(parts)


PAPER = Paper(
    name="kingma",
    title="Kingma et al. 2016: Improving variational inference with inverse autoregressive flow",
    deviations=DEVIATIONS,
    cells=_cells,
    figures=_figures,
    section=_section,
    packages=tuple(p for p in ("numpyro", "flowjax", "zuko", "torch") if importlib.util.find_spec(p)),
)

"""`python -m benchmarks.pages`: docs/choosing-a-flow.md, speed.md and accuracy.md, with their figures, from the results.

Every number on them comes from `benchmarks/results`; none is typed in.
"""

import json
import math
from pathlib import Path
from statistics import median

from benchmarks._record import RESULTS, table
from benchmarks.accuracy import SEEDS, names
from benchmarks.evidence import SEEDS as EVIDENCE_SEEDS
from benchmarks.evidence import TARGETS

_NOISE = 0.02
"""Nats: errors above this are shown."""

DOCS = Path(__file__).parents[1] / "docs"


def read(name):
    """A result, or None where it has not been measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def origin(record):
    """Where its numbers come from, in a line."""
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items() if k != "thalweg")
    machine = record["machine"]
    return (
        f"*Commit {record['commit'][:8]}, {machine['cores']} cores of {machine['processor']}, Python "
        f"{machine['python']}, {versions}.*"
    )


def _shown(cells, marks):
    kl = median(c["KL"] for c in cells)
    worst = min(cells, key=lambda c: ["no", "corrected", "raw"].index(c["verdict"]))
    error = max(c["KL's standard error"] or math.inf for c in cells)
    shown = f"{kl:.3f}" if error < _NOISE else f"{kl:.2f} ± {error:.2f}"
    return f"{shown}{marks[worst['verdict']]}" if kl < 100 else f"far{marks['no']}"


def choosing(record):
    """The page on choosing a flow."""
    marks = {"raw": "", "corrected": " *", "no": " †"}
    names = list(record["cells"])
    flows = list(record["cells"][names[0]])
    rows = []
    for flow in flows:
        found = [list(record["cells"][n][flow].values()) for n in names]
        seconds = median(cells[0]["seconds"] for cells in found)
        rows.append([f"`{flow}`", *(_shown(cells, marks) for cells in found), f"{seconds:.0f} s"])
    best = {}
    for n in names:
        kl = {f: median(c["KL"] for c in record["cells"][n][f].values()) for f in flows}
        error = {f: max(c["KL's standard error"] or math.inf for c in record["cells"][n][f].values()) for f in flows}
        first = min(kl, key=kl.get)
        known = [f for f in sorted(kl, key=kl.get) if error[f] < _NOISE]
        best[n] = [f for f in known if kl[f] - kl[first] <= 2 * math.hypot(error[f], error[first])]
    lines = [f"- {n}: {', '.join(f'`{f}`' for f in best[n])}" for n in names]
    setting = record["setting"]
    seeds = sorted({seed for n in names for flow in flows for seed in record["cells"][n][flow]})
    of_seeds = f"Of seeds {', '.join(seeds)} the median KL is shown, and the worst error and mark."
    of_one = f"Seed {seeds[0]}: another may change the order of flows that are near each other, or trap one of them."
    shown = of_seeds if len(seeds) > 1 else of_one
    return f"""# How to choose a flow

*Made by `python -m benchmarks.pages` from `benchmarks/results/choose.json`.*

Begin with `flow="auto"`: a Gaussian where its weights are good already, else couplings on top of it. Choose one yourself where the verdict asks for a richer
flow, or where you need one direction to be fast.

What follows is KL(q, p) in nats on five densities that integrate to 1 (so that it is minus the ELBO), after {setting["steps"]} steps of {setting["draws"]} draws
with the default sizes of each flow; smaller is better. The error of a number from 10,000 draws is given where it is above {_NOISE}. \\* the verdict trusts the corrected draws
only; † it trusts neither: a few draws in a long tail can do that where the KL is small. {shown}
The last column is the median of the whole fit, compiling included, at the first seed.

{table(["flow", *names, "fit"], rows)}

The nearest on each, with those that two standard errors do not tell from it; where the error itself is above {_NOISE} nothing can be told, and the flow is left out:

{chr(10).join(lines)}

## How they differ

- **One pass both ways**: the coupling flows (`nice`, `nice-orth`, `realnvp`, `spline`), `planar`-like maps forward, and `triangular-spline`. Draws and densities
  cost the same; what `flow="auto"` uses.
- **Fast to draw, one coordinate after another to score**: `iaf`, `iaf-gated`, `iaf-spline`, `naf`, `bnaf`. Fitting by the reverse KL needs draws alone, and their
  scores come along, so nothing is inverted while they train; scoring other people's draws is what is dear.
- **Fast to score, one after another to draw**: `maf`, `maf-spline`. For densities of data rather than for inference.
- **Few numbers**: `planar` and `radial` bend the Gaussian one direction at a time; `sylvester` several at once.
- **Tails**: every flow starts from a Student-t of max(30, 3 d) degrees of freedom. Where a posterior's tails fall as a power, "auto" reads the power off the log
  density and begins with Student-t's of that; `tw.distributions.TrainableStudentT` as the base of a flow built by hand learns its own.
- **Many dimensions, few correlations**: `tw.distributions.LowRankNormal` instead of the full Gaussian.

{origin(record)}
"""


def _peers(groups):
    """All peers of some results, in the order they appear."""
    return list(dict.fromkeys(peer for g in groups.values() for peer in g["ratio to thalweg"]))


def _compared(name, groups, unit):
    """Figure and table of some results."""
    shown = {k: g["ratio to thalweg"] for k, g in groups.items() if g["ratio to thalweg"]}
    peers = _peers(groups)
    rows = [[k, *_times(g, peers)] for k, g in groups.items()]
    head = [unit, "Thalweg", "products alone, share", *peers]
    return f"{_figure(name, shown, 'times as long as Thalweg')}\n\n{table(head, rows)}"


def _figure(name, groups, unit):
    """Bars: how many times our time each peer takes, with the smallest and largest round."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    colours = {"flowjax": "#1f6f8b", "zuko": "#b5651d", "normflows": "#8a8a8a", "sbi": "#6b5b95", "thalweg": "#2e2e2e"}
    figure = Figure(figsize=(7, 0.6 + 0.28 * sum(len(g) + 1 for g in groups.values())))
    FigureCanvasSVG(figure)
    axes, y, ticks = figure.add_subplot(), 0.0, []
    for label, ratios in groups.items():
        ticks.append((y + (len(ratios) - 1) / 2, label))
        for peer, ratio in ratios.items():
            low, high = ratio["median"] - ratio["min"], ratio["max"] - ratio["median"]
            axes.barh(y, ratio["median"], xerr=[[low], [high]], color=colours[peer.split()[0]], height=0.8)
            axes.text(ratio["max"] + 0.1, y, f"{peer} {ratio['median']:.2f}", va="center", fontsize=8)
            y += 1
        y += 1
    axes.set_yticks([t for t, _ in ticks], [label for _, label in ticks], fontsize=9)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel(unit, fontsize=9)
    axes.set_xlim(0, 1.25 * max(r["max"] for g in groups.values() for r in g.values()))
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    # names inside the file that are the same from run to run
    with matplotlib.rc_context({"svg.hashsalt": "thalweg"}):
        figure.savefig(DOCS / f"{name}.svg", metadata={"Date": None})
    return f"![{unit}]({name}.svg)"


def speed():
    """The page on speed."""
    parts = [
        "# How fast, against what\n\n*Made by `python -m benchmarks.pages` from `benchmarks/results`.*\n\nRatios are of times in alternating rounds of one run, each "
        "library in a process of its own and compiled before it is timed: above 1, the peer takes longer than Thalweg. The floor is the time of the "
        "networks' matrix products alone, in a loop of their own."
    ]
    step = read("step")
    if step:
        parts.append("## A training step\n\n" + _step(step))
    for name, title in (
        ("conditional", "Training a conditional flow"),
        ("sampling", "The dear directions of MAF and IAF"),
    ):
        record = read(name)
        if record:
            # a record of one result is that result
            groups = {k: v for k, v in record.items() if isinstance(v, dict) and "ratio to thalweg" in v}
            groups = groups or {record["unit"]: record}
            parts.append(f"## {title}\n\n{_compared(name, groups, record['unit'])}\n\n{origin(record)}")
    indexed = read("indexed")
    if indexed:
        parts.append("## Continuously-indexed flows\n\n" + _indexed(indexed))
    growth = read("growth")
    if growth:
        parts.append("## Growth\n\n" + _growth(growth))
    cold = read("cold")
    if cold:
        rows = [[k, f"{v['median']:.2f}", f"{v['min']:.2f} to {v['max']:.2f}"] for k, v in cold["seconds"].items()]
        ratios = [[k, f"{v['median']:.2f}", f"{v['min']:.2f} to {v['max']:.2f}"] for k, v in cold["ratio"].items()]
        parts.append(
            "## The whole command, cold\n\nEight schools from start to four files, against NumPyro's NUTS, 4 x (1000 + 1000), as whole processes.\n\n"
            f"{table(['seconds', 'median', 'range'], rows)}\n\n{table(['ratio', 'median', 'range'], ratios)}\n\n{origin(cold)}"
        )
    compiled = read("compile")
    if compiled:
        counts, deep = compiled["programs compiled"], compiled["ratio 64 layers to 4"]["median"]
        parts.append(
            f"## Compiling\n\n64 layers take {deep:.2f} times as long to trace and compile as 4. Building any of "
            f"{len(counts['building each flow'])} flows compiles {max(counts['building each flow'].values())} programs, a first `infer` "
            f"{counts['first infer']}, a second one with new data {counts['second infer, new data']}.\n\n{origin(compiled)}"
        )
    return "\n\n".join(parts) + "\n"


def _times(result, peers):
    own = result["ms" if "ms" in result else "seconds"]["thalweg"]["median"]
    others, share = result["ratio to thalweg"], result.get("products alone, share of thalweg")
    ratios = [f"{others[p]['median']:.2f}x" if p in others else "" for p in peers]
    return [f"{own:.3g}", f"{share['median']:.0%}" if share else "", *ratios]


def _step(record):
    kinds = {"affine": record, "spline": record["spline"]}
    groups = {
        f"{kind}, {gradient}": kinds[kind][f"{gradient} gradient"] for kind in kinds for gradient in ("path", "plain")
    }
    names = ["thalweg", *_peers(groups)]
    memory = [[k, *(f"{v['peak MB'][n]:.0f}" if n in v["peak MB"] else "" for n in names)] for k, v in groups.items()]
    setting = record["setting"]
    return f"""One step of reverse KL: {setting["layers"]} couplings in {setting["d"]} dimensions, networks of {setting["network"]}, {setting["draws"]} draws. "Thalweg" is
our driver on what the peers' flows are made of, "thalweg by name" on the flow that `infer` takes: a Student-t base and an affine map more.

{_compared("step", groups, "ms a step")}

{table(["peak MB", *names], memory)}

{origin(record)}"""


def _indexed(record):
    rows = [
        [
            name,
            *(f"{v['ms a step'][k]['median']:.3g}" for k in ("inner", "indexed")),
            f"{v['ratio to inner']['indexed']['median']:.2f}",
        ]
        for name, v in record.items()
        if isinstance(v, dict) and "ratio to inner" in v
    ]
    return f"""One step of reverse KL by path gradients in {record["setting"]["d"]} dimensions, flows by name with their default sizes, with indices and without.

{table(["flow", "without, ms", "with, ms", "ratio"], rows)}

{origin(record)}"""


def _growth(record):
    rows = [
        [
            f"{r['kind']}, d = {r['d']}, {r['layers']} layers, {r['draws']} draws",
            f"{r['ms a step']['median']:.3g}",
            f"{r['products alone, share']['median']:.0%}",
            *(f"{r[k]:.2f}" for k in ("trace seconds", "XLA seconds")),
            f"{r['peak MB']:.0f}",
        ]
        for r in record["rows"]
    ]
    head = ["setting", "ms a step", "products alone, share", "tracing, s", "XLA, s", "peak MB"]
    return f"{table(head, rows)}\n\n{origin(record)}"


_SUITES = {
    "posteriordb": "Posteriors with reference draws",
    "problems": "Exact answers",
    "regressions": "Logistic regressions of known evidence",
    "gym": "Inference Gym",
}
_MEASURES = {
    "mean off, sd": ("mean error", max, ".3f"),
    "log sd ratio": ("log sd ratio", max, ".3f"),
    "k-hat": ("k-hat", max, ".2f"),
    "log Z off": ("log Z error", lambda v: max(v, key=abs), "+.4f"),
    "coverage": ("coverage", min, ".3f"),
    "effective": ("effective", min, ",.0f"),
    "evaluations": ("evaluations", median, ",.0f"),
    "cold, s": ("cold seconds", median, ".1f"),
    "warm, s": ("warm seconds", median, ".1f"),
    "MB": ("memory MB", median, ".0f"),
}
"""Column -> what it is called in a cell, how seeds are summed up (the worst; the median of costs), how it is shown."""


def accuracy():
    """The page on whether the default is right, and knows it."""
    parts = [
        "# Is it right, and does it know?\n\n*Made by `python -m benchmarks.pages` from `benchmarks/results`.*\n\n`tw.infer(target)` with no settings, beside others on the same "
        "density. Of several seeds errors are the worst and costs the median; a mean's error is in sd of the reference; \"trusted\" says how many of the seeds' verdicts were. "
        "Cold is a whole process from Python's start to corrected draws, without compiled programs of before; warm a second fit in it. Above each table: what we ask of "
        "ourselves, and whether it was met."
    ]
    for suite, title in _SUITES.items():
        record = read(f"accuracy-{suite}")
        if record:
            bars = "\n".join(_bars(suite, record["cells"]))
            parts.append(
                f"## {title}\n\n{_extent(suite, record['cells'])}\n\n{bars}\n\n{_suite(record['cells'])}\n\n{origin(record)}"
            )
    evidence = read("evidence")
    if evidence:
        within = evidence["within two standard errors"]
        rows = [[name, str(k), str(n)] for name, (k, n) in within.items()]
        covered, of = (sum(pair[i] for pair in within.values()) for i in range(2))
        fits = len(TARGETS) * EVIDENCE_SEEDS
        share = {f"{covered} of {of} so far, of {fits} to be made,": covered / of}
        bar = _bar("two standard errors hold the truth in 90 % of fits", share, ".1%", least=0.9)
        head = ["", "within two standard errors", "of"]
        parts.append(f"## The evidence's error\n\n{bar}\n\n{table(head, rows)}\n\n{origin(evidence)}")
    ablation = read("ablation")
    if ablation:
        cells = {n: {m: {"0": c} for m, c in of.items()} for n, of in ablation["cells"].items()}
        words = "The defaults, and the same less one rung each."
        parts.append(f"## What each rung is worth\n\n{words}\n\n{_suite(cells)}\n\n{origin(ablation)}")
    return "\n\n".join(parts) + "\n" if len(parts) > 1 else None


def _extent(suite, cells):
    """What of a suite has been measured, where and at which commits: what is met so far may be missed by the rest."""
    ours = {name: of["thalweg"] for name, of in cells.items() if of.get("thalweg")}
    seeds = sorted({int(s) for of in ours.values() for s in of})
    commits = sorted({c["commit"][:8] for of in ours.values() for c in of.values()})
    on = sorted({c["processor"] for of in ours.values() for c in of.values() if "processor" in c})
    cells_on = f"; cells on {' and '.join(on)}" if len(on) > 1 else ""
    missing = [n for n in names(suite) if n not in ours]
    left = f"Not measured yet: {', '.join(missing)}. " if missing else ""
    few = f" of {', '.join(map(str, SEEDS))}" if len(seeds) < len(SEEDS) else ""
    return f"{left}Seeds {', '.join(map(str, seeds))}{few}; commits {', '.join(commits)}{cells_on}."


def _bar(asked, found, shown, *, most=math.inf, least=-math.inf):
    """A line: what is asked of all that was found, and which miss it, or the nearest to it."""
    missed = {k: v for k, v in found.items() if not (v >= least and abs(v) <= most)}
    nearest = min(found, key=found.get) if least > -math.inf else max(found, key=lambda k: abs(found[k]))
    named = ", ".join(f"{k} {v:{shown}}" for k, v in (missed or {nearest: found[nearest]}).items())
    return f"- **missed**: {asked}: {named}" if missed else f"- met: {asked} (the nearest: {named})"


def _bars(suite, cells):
    """A line for each thing that is asked of a suite."""
    ours = {name: list(of["thalweg"].values()) for name, of in cells.items() if of.get("thalweg")}

    def each(key, which=lambda name: True, worst=max):
        found = {n: [c[key] for c in of if c.get(key) is not None] for n, of in ours.items() if which(n)}
        return {n: worst(v) for n, v in found.items() if v}

    def largest(values):
        return max(values, key=abs)

    asked = []
    if suite != "problems":
        asked.append(("every mean within 0.1 sd", each("mean error"), ".3f", {"most": 0.1}))
    if suite == "posteriordb":
        asked += [
            ("every sd within a tenth", each("log sd ratio"), ".3f", {"most": math.log(1.1)}),
            *(
                (f"2,000 effective of 10,000 draws, {by}", each(key, worst=min), ",.0f", {"least": 2000})
                for by, key in (
                    ("by weights or chains", "effective"),
                    ("in the bulk", "bulk ESS"),
                    ("in the tails", "tail ESS"),
                )
            ),
            *_against_nuts(cells),
        ]
    if suite == "problems":
        small = ("funnel-10", "gmm40", "lattice-9", "lattice-16")
        wells = {"many-well-32": 0.05, "many-well-32-rotated": 0.2}
        asked.append(("log Z within 0.01", each("log Z error", small.__contains__, largest), "+.4f", {"most": 0.01}))
        for name, bar in wells.items():
            asked.append((f"and within {bar}", each("log Z error", name.__eq__, largest), "+.4f", {"most": bar}))
        asked += [
            ("0.99 of the modes' mass, or more", each("coverage", worst=min), ".3f", {"least": 0.99}),
            ("k-hat below 0.7", each("k-hat", "student-t-1.5".__eq__), ".2f", {"most": 0.7}),
        ]
    if suite == "regressions":
        asked.append(("log Z within 0.02", each("log Z error", worst=largest), "+.4f", {"most": 0.02}))
    if suite == "gym" and len(ours.get("pines", [])) > 1:
        values = [c["log Z"] for c in ours["pines"] if c.get("log Z") is not None]
        if values:
            asked.append(("log Z of all seeds within 0.5", {"pines": max(values) - min(values)}, ".2f", {"most": 0.5}))
    return [_bar(*one, **bar) for *one, bar in asked if one[1]] + _trust(ours)


def _against_nuts(cells):
    """Of seconds: each problem's ratio, and the median."""
    ratio = {}
    for kind in ("cold", "warm"):
        for name, of in cells.items():
            both = of.get("thalweg", {}).keys() & of.get("NUTS", {}).keys()
            pairs = [[of[m][s].get(f"{kind} seconds") for m in ("thalweg", "NUTS")] for s in both]
            known = [a / b for a, b in pairs if a and b]
            if known:
                ratio.setdefault(kind, {})[name] = median(known)
    if not ratio:
        return
    off = {n: max(c.get("mean error") or 0.0 for c in of["NUTS"].values()) for n, of in cells.items() if of.get("NUTS")}
    wrong = {n: f"{n} (where NUTS's own means are {off[n]:.0f} sd off)" for n in off if off[n] > 1}
    yield "no longer than NUTS, cold", {wrong.get(n, n): v for n, v in ratio["cold"].items()}, ".2f", {"most": 1}
    for kind, bar in (("cold", 0.3), ("warm", 0.2)):
        yield f"{bar} of NUTS's time, {kind}", {"the median": median(ratio[kind].values())}, ".3f", {"most": bar}


def _trust(ours):
    """Whether verdicts are right: of draws that are good, of those that are not."""
    each = [(n, c) for n, of in ours.items() for c in of if "ok" in c and c.get("mean error") is not None]
    good = [c["ok"] for _, c in each if c["mean error"] <= 0.1 and c["log sd ratio"] <= math.log(1.1)]
    false = {n: c["mean error"] for n, c in each if c["ok"] and c["mean error"] > 0.2}
    lines = []
    if good:
        share = {f"{sum(good)} of {len(good)}": sum(good) / len(good)}
        lines.append(_bar("trusted on 90 % of the fits that are good", share, ".0%", least=0.9))
    if each:
        bar = "never trusted with a mean 0.2 sd off"
        lines.append(f"- **missed**: {bar}; {', '.join(false)}" if false else f"- met: {bar}")
    fell = [n for n, of in ours.items() if any("failed" in c for c in of)]
    return [*lines, f"- **missed**: no fit fails; {', '.join(fell)}" if fell else "- met: no fit fails"]


def _suite(cells):
    """A row for each problem and method; columns that nothing fills are left out."""
    lines = [(name, method, list(of.values())) for name, methods in cells.items() for method, of in methods.items()]
    rows = [[name, method, _trusted(found), *_measured(found)] for name, method, found in lines]
    head = ["", "method", "trusted", *_MEASURES]
    kept = [i for i, h in enumerate(head) if not h or any(row[i] for row in rows)]
    return table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _trusted(found):
    known = [c["ok"] for c in found if "ok" in c]
    failed = sum("failed" in c for c in found)
    words = [f"{sum(known)} of {len(known)}"] * bool(known) + [f"{failed} failed"] * bool(failed)
    return ", ".join(words)


def _measured(found):
    for key, summed, shown in _MEASURES.values():
        values = [c[key] for c in found if c.get(key) is not None]
        yield format(summed(values), shown) if values else ""


def main():
    """Write the pages, as far as there are results."""
    DOCS.mkdir(exist_ok=True)
    choose = read("choose")
    if choose:
        (DOCS / "choosing-a-flow.md").write_text(choosing(choose))
    (DOCS / "speed.md").write_text(speed())
    if page := accuracy():
        (DOCS / "accuracy.md").write_text(page)


if __name__ == "__main__":
    main()

"""What the papers share: cells that are kept one by one, results with their origin, figures and a page made of them."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks._record import origin_of, table
from matplotlib.figure import Figure

from papers._plots import save

SCALES = ("smoke", "laptop", "paper")
HERE = Path(__file__).parent
TRIED = HERE.parent / ".papers"
"""Arrays that figures are drawn from, and all of a smoke run; git passes over it."""
PACKAGES = ("thalweg", "jax", "jaxlib", "numpy")

Numbers = dict[str, Any]
Arrays = dict[str, np.ndarray]
Cell = Callable[[], tuple[Numbers, Arrays]]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: of its file, without an ending.
        cells: whose arrays it is drawn from; without them, as on another machine, the file stays as it is.
        draw: (what reads a cell's arrays) -> the figure.
    """

    name: str
    cells: tuple[str, ...]
    draw: Callable[[Callable[[str], Arrays]], Figure]


@dataclasses.dataclass(frozen=True)
class Paper:
    """One paper.

    Attributes:
        name: on the command line and of its files.
        title: with the authors and the year.
        deviations: from the paper, in sentences, by scale.
        cells: scale -> name of a cell -> what gives its numbers, and the arrays that its figure is drawn from.
        figures: (the record) -> the figures, each with the cells whose arrays it is drawn from.
        section: the record -> Markdown, without title and figures.
        packages: whose versions count, beside the usual ones.
    """

    name: str
    title: str
    deviations: Mapping[str, tuple[str, ...]]
    cells: Callable[[str], dict[str, Cell]]
    figures: Callable[[Numbers], "list[Drawing]"]
    section: Callable[[Numbers], str]
    packages: tuple[str, ...] = ()


def _replace(path: Path, text: str) -> None:
    """Write under another name first: a run that is stopped leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _places(paper: Paper, scale: str) -> tuple[Path, Path, Path]:
    """(the JSON, the folder of figures, that of arrays)."""
    results, figures = (TRIED, TRIED) if scale == "smoke" else (HERE / "results", HERE / "figures")
    return results / f"{paper.name}-{scale}.json", figures, TRIED / "arrays" / paper.name / scale


def run(paper: Paper, scale: str, *, resume: bool, only: tuple[str, ...] = ()) -> None:
    """Run the cells that are missing, keep each, then draw."""
    path, figures, arrays = _places(paper, scale)
    kept = json.loads(path.read_text())["cells"] if (resume or only) and path.exists() else {}
    cells = paper.cells(scale)
    # cells that were not asked for are kept, whatever is run anew
    done: Numbers = {n: kept[n] for n in cells if n in kept and (resume or not n.startswith(only))}
    load = os.getloadavg()[0]
    for i, (name, cell) in enumerate(cells.items(), 1):
        if name in done or (only and not name.startswith(only)):
            continue
        start = time.perf_counter()
        numbers, drawn = cell()
        seconds = time.perf_counter() - start
        if drawn:
            arrays.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(arrays / f"{name}.npz", **drawn)
        record = origin_of((*PACKAGES, *paper.packages), load)
        done[name] = {**numbers, "seconds": seconds, "commit": record["commit"], "clean": record["clean"]}
        told = {"name": paper.name, "scale": scale, "deviations": list(paper.deviations.get(scale, ())), **record}
        # in the order of the paper, however they were run
        _replace(path, json.dumps({**told, "cells": {n: done[n] for n in cells if n in done}}, indent=1) + "\n")
        shown = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if isinstance(v, float))
        print(f"{paper.name} {scale} {i}/{len(cells)} {name}: {shown} ({seconds:.0f} s)", flush=True)
    if done:
        _draw(paper, json.loads(path.read_text()), figures, arrays)


def _draw(paper: Paper, record: Numbers, figures: Path, arrays: Path) -> None:
    """Every figure whose arrays are here."""

    def read(name: str) -> Arrays:
        with np.load(arrays / f"{name}.npz") as held:
            return dict(held)

    for drawing in paper.figures(record):
        if all((arrays / f"{name}.npz").exists() for name in drawing.cells):
            save(drawing.draw(read), figures, drawing.name)


def write_readme(papers: Iterable[Paper]) -> None:
    """`papers/README.md`: a section for each paper and scale that has been run."""
    parts = [
        "# Five papers, run again",
        "",
        "Made by `python -m papers README` from the JSON files in `results`; no number or figure is typed in by hand. "
        "`python -m papers --help` says how to run them.",
    ]
    for paper in papers:
        for scale in SCALES[:0:-1]:
            path, figures, _ = _places(paper, scale)
            if not path.exists():
                continue
            record = json.loads(path.read_text())
            shown = [f"{d.name}.png" for d in paper.figures(record)]
            machine, versions = record["machine"], record["versions"]
            seconds = sum(c["seconds"] for c in record["cells"].values())
            parts += [
                "",
                f"## {paper.title}",
                "",
                f"*Scale: {scale}. {len(record['cells'])} cells, {seconds / 60:.0f} minutes on {machine['cores']} "
                f"cores of {machine['processor']}, commit {record['commit'][:8]}, "
                f"{', '.join(f'{k} {v}' for k, v in versions.items() if k != 'thalweg')}.*",
                "",
                *(f"- {d}" for d in record["deviations"]),
                "",
                paper.section(record),
                *(f"\n![{name}]({figures.relative_to(HERE)}/{name})" for name in shown if (figures / name).exists()),
            ]
    _replace(HERE / "README.md", "\n".join(parts) + "\n")


def spread(values: Iterable[float], digits: int = 3) -> str:
    """The median and the range, as a cell of a table."""
    found = sorted(values)
    middle = float(np.median(found))
    if len(found) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({found[0]:.{digits}f} to {found[-1]:.{digits}f})"


__all__ = ["Arrays", "Cell", "Drawing", "Numbers", "Paper", "run", "spread", "table", "write_readme"]

"""The papers' harness: cells kept one by one, resumed, drawn; and one smoke run of each paper."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from papers import _harness
from papers._harness import Drawing, Paper, run, spread, write_readme

ROOT = Path(__file__).parents[2]


def paper(calls, fails=()):
    def cell(name):
        def measure():
            if name in fails:
                raise RuntimeError(name)
            calls.append(name)
            return {"value": float(len(name))}, {"density": np.ones((2, 2))}

        return measure

    def figure(read):
        assert read("one")["density"].shape == (2, 2)
        return Figure(figsize=(1, 1))

    def figures(record):
        return [Drawing("figure", ("one",), figure), Drawing("another", ("four",), figure)]

    def section(record):
        return f"Sum: {sum(c['value'] for c in record['cells'].values())}"

    names = ("one", "three", "fiftyfour")
    return Paper(
        "toy", "A toy", {"laptop": ("all of it",)}, lambda scale: {n: cell(n) for n in names}, figures, section
    )


def test_cells_are_kept_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(_harness, "HERE", tmp_path)
    monkeypatch.setattr(_harness, "TRIED", tmp_path / "tried")
    calls = []
    with pytest.raises(RuntimeError, match="fiftyfour"):
        run(paper(calls, {"fiftyfour"}), "laptop", resume=False)
    assert list(json.loads((tmp_path / "results" / "toy-laptop.json").read_text())["cells"]) == ["one", "three"]
    run(paper(calls), "laptop", resume=True)
    assert calls == ["one", "three", "fiftyfour"]
    record = json.loads((tmp_path / "results" / "toy-laptop.json").read_text())
    assert (tmp_path / "figures" / "figure.png").stat().st_size > 100
    assert record["deviations"] == ["all of it"]
    assert {"seconds", "commit", "clean"} < set(record["cells"]["one"])
    write_readme([paper([])])
    page = (tmp_path / "README.md").read_text()
    assert "Sum: 17.0" in page and "![figure.png](figures/figure.png)" in page
    assert "another" not in page
    # one part anew loses no other
    run(paper(calls), "laptop", resume=False, only=("thr",))
    assert calls[3:] == ["three"]
    assert len(json.loads((tmp_path / "results" / "toy-laptop.json").read_text())["cells"]) == 3
    # without resuming all is run anew
    run(paper(calls), "laptop", resume=False)
    assert len(calls) == 7


def test_spreads():
    assert spread([3.0]) == "3.000"
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rezende-mohamed", "kingma", "caterini"])
def test_every_paper_runs_at_smoke_scale(name):
    command = [sys.executable, "-m", "papers", name, "--scale", "smoke"]
    env = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"}
    page = ROOT / "papers" / "README.md"
    before = page.read_text() if page.exists() else None
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((ROOT / ".papers" / f"{name}-smoke.json").read_text())
    drawn = list((ROOT / ".papers").glob(f"{name}-*.png"))
    assert len(drawn) >= (2 if name == "kingma" else 3)
    assert min(figure.stat().st_size for figure in drawn) > 5000
    numbers = [v for c in record["cells"].values() for v in c.values() if isinstance(v, float)]
    assert len(numbers) > 10 and np.isfinite(numbers).all()
    if before is not None:
        # what is shown comes of longer runs alone
        assert page.read_text() == before

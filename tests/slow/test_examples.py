"""The examples as a user runs them: the command, its four files, the truth they should hold."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from posteriordb_models import RECORDS

ROOT = Path(__file__).parents[2]


def _infer(folder, out, *options, model="model.py"):
    data = ROOT / "examples" / folder / "data.json"
    command = [str(Path(sys.executable).parent / "thalweg"), "infer", str(ROOT / "examples" / folder / model)]
    command += (["--data", str(data)] if data.exists() else []) + ["--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(f.name for f in out.iterdir()) == [
        "posterior.nc",
        "posterior.thalweg",
        "report.html",
        "summary.json",
    ]
    return done, json.loads((out / "summary.json").read_text())


def _errors(summary, record):
    """Errors of the means in reference sds, by the reference's own names."""
    rows = {row["name"]: row for row in summary["parameters"]}

    def ours(label):
        name, _, index = label.rstrip("]").partition("[")
        return f"{name}[{int(index) - 1}]" if index else name

    return [
        (rows[ours(n)]["mean"] - m) / s for n, m, s in zip(record["names"], record["mean"], record["sd"], strict=True)
    ]


@pytest.mark.slow
def test_eight_schools(tmp_path):
    done, summary = _infer("eight_schools", tmp_path / "run")
    assert np.max(np.abs(_errors(summary, RECORDS["eight_schools-eight_schools_noncentered"]))) < 0.1
    assert "ELBO" in done.stderr
    assert "log evidence" in done.stdout
    assert "verdict" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model_pymc.py", "model.stan"])
def test_eight_schools_in_other_languages(model, tmp_path):
    done, summary = _infer("eight_schools", tmp_path / "run", "--json", model=model)
    rows = {row["name"]: row for row in summary["parameters"]}
    record = RECORDS["eight_schools-eight_schools_noncentered"]
    for ours, reference in (("mu", "mu"), ("tau", "tau"), ("theta[0]", "theta[1]")):
        i = record["names"].index(reference)
        assert abs(rows[ours]["mean"] - record["mean"][i]) < 0.1 * record["sd"][i]
    assert json.loads(done.stdout)["verdict"]["ok"]


@pytest.mark.slow
def test_radon(tmp_path):
    _, summary = _infer("radon", tmp_path / "run", "--quiet")
    assert np.max(np.abs(_errors(summary, RECORDS["radon_mn-radon_hierarchical_intercept_centered"]))) < 0.1


@pytest.mark.slow
def test_banana(tmp_path):
    done, summary = _infer("banana", tmp_path / "run", "--json")
    assert json.loads(done.stdout) == summary
    evidence = summary["log_evidence"]
    assert abs(evidence["value"]) < 5 * evidence["standard_error"]
    # what flows that bend were seen to lack unseen, and next to nothing beside it
    assert 0.01 < evidence["standard_error"] < 0.011

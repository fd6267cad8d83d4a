"""Whole runs of the command: files, exit statuses, sample, report, interruption and resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray

import thalweg as tw
from four_forms import SCHOOLS as EIGHT_SCHOOLS
from four_forms import STAN

THALWEG = str(Path(sys.executable).parent / "thalweg")
ROOT = Path(__file__).parents[2]
BANANA = ROOT / "examples" / "banana" / "model.py"
SCHOOLS = ROOT / "examples" / "eight_schools"
FILES = ["posterior.nc", "posterior.thalweg", "report.html", "summary.json"]


def call(*arguments, status=0, **environment):
    """A whole process; its standard output and error."""
    command = [THALWEG, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, and what it printed."""
    out, model = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("model") / "banana.py"
    model.write_text(BANANA.read_text() + "\nprint('a model may print')\n")
    (out / ".partial-of-a-killed-run").mkdir()
    return out, call("infer", model, "--out", out, "--json", "--flow", "gaussian", status=3)


def test_an_untrusted_run_is_whole_and_says_so(run):
    out, (stdout, stderr) = run
    summary = json.loads(stdout)
    assert sorted(f.name for f in out.iterdir()) == FILES
    assert json.loads((out / "summary.json").read_text()) == summary
    assert stderr == "a model may print\n"
    assert not summary["verdict"]["ok"]
    assert "Do not trust it" in summary["verdict"]["sentence"]
    assert [row["name"] for row in summary["parameters"]] == ["x", "y"]
    assert tw.load(out / "posterior.thalweg").sample(10)["x"].shape == (10,)
    tree = xarray.open_datatree(out / "posterior.nc")
    assert tree["posterior"]["x"].shape == (4, 1000)
    assert "Do not trust it" in (out / "report.html").read_text()


def test_sample_and_report(run, tmp_path):
    out, _ = run
    assert "Do not trust it" in call("sample", out, "-n", 50, "--out", tmp_path / "d.npz", status=3)[1]
    call("sample", out, "-n", 50, "--raw", "--out", tmp_path / "d.csv")
    raw = tw.load(out / "posterior.thalweg").sample(50)
    table = np.genfromtxt(tmp_path / "d.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["x"], raw["x"], rtol=1e-6)
    assert np.load(tmp_path / "d.npz")["y"].shape == (50,)
    call("report", out, "--out", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_python_m_thalweg_is_the_command():
    by_python = subprocess.run(
        [sys.executable, "-m", "thalweg", "sample", "--help"], capture_output=True, text=True, check=False
    )
    assert by_python.returncode == 0, by_python.stderr
    assert by_python.stdout == call("sample", "--help")[0]
    assert "Usage: thalweg sample" in by_python.stdout


def test_a_report_is_not_replaced_by_a_poorer_one(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run[0], again)
    summary = (again / "summary.json").read_text()
    for source in ("null", '{"model": 7, "data": null}'):
        (again / "summary.json").write_text(f'{{"source": {source}}}')
        assert "no readable summary.json" in call("sample", again, "--out", tmp_path / "d.npz", status=2)[1]
    (again / "summary.json").write_text(summary.replace("banana.py", "moved.py"))
    before = (again / "report.html").read_text()
    assert "give another --out" in call("report", again, status=2)[1]
    assert (again / "report.html").read_text() == before
    assert "without corrected draws" in call("report", again, "--out", tmp_path / "poorer.html")[1]
    assert (tmp_path / "poorer.html").exists()


FORMS = {
    "httpstan": ("model.stan", STAN[EIGHT_SCHOOLS]),
    "pymc": (
        "model.py",
        "import pymc as pm\ndef model(J, y, sigma):\n  with pm.Model() as m:\n    mu, tau = pm.Normal('mu', 0, 5), "
        "pm.HalfCauchy('tau', 5)\n    theta = pm.Normal('theta', mu, tau, shape=J)\n    pm.Normal('y', theta, sigma, "
        "observed=y)\n  return m\n",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("guest", ["httpstan", "pymc"])
def test_a_run_of_another_language(guest, tmp_path, pytestconfig):
    pytest.importorskip(guest)
    name, source = FORMS[guest]
    (tmp_path / name).write_text(source)
    # compiled programs of Stan are kept from one run of the tests to the next; none of XLA's
    kept = {"XDG_CACHE_HOME": str(pytestconfig.cache.mkdir("stan")), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}
    out, data = tmp_path / "run", tmp_path / "d.json"
    data.write_text(json.dumps({"J": 8, **json.loads((SCHOOLS / "data.json").read_text())}))
    options = ("--flow", "gaussian", "--json")
    stdout, _ = call("infer", tmp_path / name, "--data", data, "--out", out, *options, status=3, **kept)
    rows = {row["name"]: row for row in json.loads(stdout)["parameters"]}
    assert {"mu", "tau", "theta[0]", "theta[7]"} <= set(rows)
    assert sorted(f.name for f in out.iterdir()) == FILES
    tree = xarray.open_datatree(out / "posterior.nc")
    assert tree["log_likelihood"]["y"].shape == (4, 1000, 8)
    # the flow's own draws need the model too: the way back from R^d is its
    call("sample", out, "-n", 50, "--raw", "--out", tmp_path / "d.npz", **kept)
    assert np.load(tmp_path / "d.npz")["theta"].shape == (50, 8)
    call("report", out, "--out", tmp_path / "r.html", **kept)
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


SWALLOWS = """
import gc, os, signal
def at_collection(phase, info):
    if phase == "start" and at_collection in gc.callbacks:
        gc.callbacks.remove(at_collection)
        os.kill(os.getpid(), signal.SIGTERM)  # what its handler raises here is printed, and goes no further
gc.callbacks.append(at_collection)
gc.collect()
"""


def test_an_interruption_that_a_garbage_collection_swallowed_comes_again(tmp_path):
    model = tmp_path / "model.py"
    model.write_text(SWALLOWS + BANANA.read_text())
    assert call("infer", model, "--out", tmp_path / "run", status=130)[1].endswith("thalweg: interrupted\n")


@pytest.mark.slow
def test_interrupted_then_resumed_to_the_same_bits(tmp_path):
    first, whole = tmp_path / "a", tmp_path / "b"
    arguments = [THALWEG, "infer", str(SCHOOLS / "model.py"), "--data", str(SCHOOLS / "data.json"), "--quiet"]
    arguments += ["--flow", "realnvp", "--steps", "6000"]
    process = subprocess.Popen([*arguments, "--out", str(first)], stderr=subprocess.PIPE, text=True)
    # the fit begins once the folder is there and the Gaussian start has been kept
    deadline = time.monotonic() + 60
    while not (first / "checkpoint.thalweg").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "thalweg: interrupted; the same command with --resume goes on from here\n"
    assert [f.name for f in first.iterdir()] == ["checkpoint.thalweg"]
    for out, extra in ((first, ["--resume"]), (whole, [])):
        subprocess.run([*arguments, "--out", str(out), *extra], check=True)
        assert sorted(f.name for f in out.iterdir()) == FILES
    a, b = (tw.load(out / "posterior.thalweg") for out in (first, whole))
    np.testing.assert_array_equal(a.trace["elbo"], b.trace["elbo"])
    np.testing.assert_array_equal(a.sample(100)["tau"], b.sample(100)["tau"])
    assert a.log_evidence == b.log_evidence

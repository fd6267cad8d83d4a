"""Bad input: exit status 2, one sentence, no traceback, nothing half-written."""

import errno
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import thalweg as tw
import thalweg.cli
from four_forms import SCHOOLS as EIGHT_SCHOOLS
from four_forms import STAN, data_of
from thalweg._core import precision
from thalweg.report import report

SCHOOLS = Path(__file__).parents[2] / "examples" / "eight_schools"
HEAD = "import jax.numpy as jnp\nimport thalweg as tw\nsupports = {'x': tw.real(), 't': tw.real()}\n"
NUMPYRO = "import numpyro\nimport numpyro.distributions as dist\n"


@pytest.fixture(autouse=True)
def _as_users_write(monkeypatch):
    """Users' files promote types and ranks; no test leaves a compile cache behind, or ends the process."""
    monkeypatch.setattr(thalweg.cli, "_compile_fast", lambda: None)
    monkeypatch.setattr(thalweg.cli, "_leave", sys.exit)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def command(monkeypatch, capsys, *arguments):
    """(exit status, standard output, standard error) of the command."""
    monkeypatch.setattr(sys, "argv", ["thalweg", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        thalweg.cli.main()
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


def refused(monkeypatch, capsys, out, *arguments):
    """The one sentence of a refusal; a folder that it made for nothing is gone again."""
    made_before = out.is_dir()
    status, stdout, stderr = command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert stdout == ""
    assert stderr.startswith("thalweg: ")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert not out.is_dir() or (made_before and not list(out.iterdir()))
    return stderr


@pytest.mark.parametrize(
    ("source", "data", "words"),
    [
        ("import nothing_here", None, ["cannot be run", "line 1", "nothing_here"]),
        ("def f(:", None, ["SyntaxError in line 1"]),
        ("x = 1", None, ["must define log_density and supports"]),
        ("def log_density(p):\n    return 0.0", None, ["must define supports"]),
        (HEAD + "def log_density(p):\n    return -p['x'] * jnp.ones(3)", None, ["must return one number", "(3,)"]),
        (HEAD + "def log_density(p):\n    return 3", None, ["must return a float"]),
        (HEAD + "def log_density(p):\n    return jnp.log(-1 - p['t']**2) - p['x']**2", None, ["NaN", "`t`", "t=0"]),
        (
            HEAD + "def log_density(p):\n    return jnp.where(p['t'] > 50, 0, -jnp.inf) - p['x']**2",
            None,
            ["-inf", "because of `t`", "x=0, t=0"],
        ),
        (HEAD + "def log_density(p, data):\n    return -p['x']**2 * data['a']", {"b": 1.0}, ["'a'", "the data's b"]),
        (HEAD + "def log_density(p, data):\n    return -p['x']**2", None, ["`data` must be given"]),
        (
            HEAD + "def log_density(p, data):\n    return -(p['x'] - data['a'] @ data['b'])**2",
            {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]},
            ["`log_density` raised", "line 5"],
        ),
        (HEAD + "def log_density(p, data):\n    return -p['x']**2", '{"a": [1.0, NaN]}', ["NaN", "data['a']"]),
        (HEAD + "def log_density(p, data):\n    return -p['x']**2", {"a": ["b"]}, ["data['a']", "hold numbers"]),
        (
            HEAD + "def log_density(p, data):\n    return -p['x']**2",
            {"a": [[1], [1, 2]]},
            ["data['a']", "equal"],
        ),
        (HEAD + "def log_density(p, data):\n    return -p['x']**2", '{"a": ', ["cannot be read"]),
        (
            NUMPYRO + "def model(y):\n    numpyro.sample('k', dist.Poisson(3.0))",
            {"y": 1.0},
            ["'k'", "discrete"],
        ),
        (
            NUMPYRO + "def model(a, y=None):\n    numpyro.sample('k', dist.Normal(a))",
            {"Y": 1.0},
            ["must have a"],
        ),
        (
            NUMPYRO + "def model(a, y=None):\n    numpyro.sample('k', dist.Normal(a))",
            {"a": 1.0, "Y": 1.0},
            ["only have arguments", "got Y"],
        ),
    ],
)
def test_models_and_data(monkeypatch, capsys, tmp_path, source, data, words):
    model, out = tmp_path / "model.py", tmp_path / "run"
    model.write_text(source + "\n")
    extra = []
    if data is not None:
        (tmp_path / "d.json").write_text(data if isinstance(data, str) else json.dumps(data))
        extra = ["--data", tmp_path / "d.json"]
    sentence = refused(monkeypatch, capsys, out, "infer", model, *extra, "--out", out)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("model { x ~ normal(0, 1) }", ["must be a Stan program that compiles", "'m.stan', line 1, column 25"]),
        ("parameters { real x; } model { x ~ nrmal(0, 1); }", ["Semantic error in 'm.stan', line 1", "nrmal"]),
    ],
)
def test_stan_programs(monkeypatch, capsys, tmp_path, source, words):
    pytest.importorskip("httpstan")
    model, out = tmp_path / "m.stan", tmp_path / "run"
    model.write_text(source)
    sentence = refused(monkeypatch, capsys, out, "infer", model, "--out", out)
    assert all(word in sentence for word in words)


@pytest.mark.slow
def test_data_that_a_stan_program_refuses(monkeypatch, capsys, tmp_path, pytestconfig):
    pytest.importorskip("httpstan")
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytestconfig.cache.mkdir("stan")))
    (tmp_path / "m.stan").write_text(STAN[EIGHT_SCHOOLS])
    arguments = ("infer", tmp_path / "m.stan", "--out", tmp_path / "run", "--data", tmp_path / "d.json")
    (tmp_path / "d.json").write_text('{"J": 8, "sigma": [1, 2]}')
    sentence = refused(monkeypatch, capsys, tmp_path / "run", *arguments)
    assert "`data` must fit the program's data block, got variable does not exist" in sentence
    # an error of the program that shows while JAX runs it
    broken = {k: v.tolist() for k, v in data_of(EIGHT_SCHOOLS).items()}
    (tmp_path / "d.json").write_text(json.dumps(broken))
    target = thalweg.from_file(tmp_path / "m.stan", tmp_path / "d.json")
    target = target.replace_data({**target.data, "y": target.data["y"] + 1e7})
    monkeypatch.setattr(thalweg.cli, "from_file", lambda *_: target)
    monkeypatch.setattr(
        thalweg.cli, "infer_posterior", lambda target, *_, **__: target.log_density(jax.numpy.zeros(10))
    )
    sentence = refused(monkeypatch, capsys, tmp_path / "run", *arguments)
    assert sentence.startswith("thalweg: `program` must run at every point, or reject it, got ")


SQUARE = HEAD + "def log_density(p, data):\n    return -(p['x'] - data['a'].sum())**2\n"


def _npz(cut=None):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()[:cut]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.npz", _npz(100), "cannot be read"),
        ("d.npz", b"not an archive", "not an .npz archive"),
        ("d.json.gz", b"\x1f\x8b broken", "cannot be read"),
        ("d.json", b"[" * 100_000, "cannot be read"),
        ("d.json", b" \n", "it is empty"),
        ("d.json", b"[1, 2]", "not an object of names"),
        ("d.csv", b"a,a\n1,2\n", "a more than once"),
        ("d.csv", b"a,b\n1\n", "line 2 has 1 columns"),
        ("d.json", b'{"a": [-3000000000, 1]}', "data['a']` must fit into int32, got -3000000000"),
        ("d.json", b'{"a": [1e300, 1.0]}', "data['a']` must fit into float32, got 1e+300"),
        ("d.json", b"{}", "there are the parameters x, t, and no named data"),
    ],
)
def test_damaged_data(monkeypatch, capsys, tmp_path, name, content, words):
    (tmp_path / "model.py").write_text(SQUARE)
    (tmp_path / name).write_bytes(content)
    arguments = ("infer", tmp_path / "model.py", "--data", tmp_path / name, "--out", tmp_path / "run")
    with precision("float32"):
        assert words in refused(monkeypatch, capsys, tmp_path / "run", *arguments)


@pytest.mark.parametrize(
    "body",
    [
        "jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * p['x']), (0, p['x']))[1]",
        "jnp.linalg.eig(jnp.eye(2) * p['x'])[1].real.sum()",
    ],
)
def test_a_density_without_a_gradient(monkeypatch, capsys, tmp_path, body):
    (tmp_path / "model.py").write_text(f"import jax\n{HEAD}def log_density(p):\n    return {body}\n")
    out = tmp_path / "run"
    sentence = refused(monkeypatch, capsys, out, "infer", tmp_path / "model.py", "--out", out)
    assert "`log_density` must have a gradient" in sentence


def test_a_missing_observation_is_not_a_latent_site(monkeypatch, capsys, tmp_path):
    model, data = tmp_path / "model.py", tmp_path / "data.json"
    body = "def model(x, y=None):\n    b = numpyro.sample('b', dist.Normal(0, 1))\n"
    model.write_text(NUMPYRO + body + "    numpyro.sample('y', dist.Normal(b * x, 1), obs=y)\n")
    data.write_text('{"x": [1.0, 2.0]}')
    sentence = refused(monkeypatch, capsys, tmp_path / "run", "infer", model, "--data", data, "--out", tmp_path / "run")
    assert "`data` must have y" in sentence and "the posterior is the prior" in sentence
    data.write_text('{"x": [1.0, 2.0], "y": null}')
    assert tw.from_file(model, data).names == ("b", "y")


def test_what_is_no_number_is_shown_with_its_row(monkeypatch, capsys, tmp_path):
    model, data = tmp_path / "model.py", tmp_path / "data.csv"
    model.write_text(HEAD + "def log_density(p, data):\n    return -p['x']**2 - p['t']**2 + 0 * data['y'].sum()")
    data.write_text("y\n1\n2\nNA\n4\n")
    sentence = refused(monkeypatch, capsys, tmp_path / "run", "infer", model, "--data", data, "--out", tmp_path / "run")
    assert "`data['y']` must hold numbers" in sentence and "NA in row 3" in sentence
    data.write_text("y\n1\n2\n\n")
    assert tw.from_file(model, data).data["y"].tolist() == [1, 2]


def test_a_model_file_with_a_dataclass_and_a_table_from_a_spreadsheet(tmp_path):
    source = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass C:\n    a: float = 1.0\n"
    )
    (tmp_path / "m.py").write_text(source + SQUARE)
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4\r\n")
    target = thalweg.from_file(tmp_path / "m.py", tmp_path / "d.csv")
    assert set(target.data) == {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["infer"], "Missing argument 'model'"),
        (["infer", "m.py", "--out", "o", "--seed", "x"], "'--seed'"),
        (["infer", "m.py", "--out", "o", "--nothing"], "--nothing"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_wrong_usage_is_one_sentence(monkeypatch, capsys, tmp_path, arguments, words):
    assert words in refused(monkeypatch, capsys, tmp_path, *arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--flow", "realnpv"], "did you mean 'realnvp'?"),
        (["--steps", "-5"], "`steps` must be a whole number of at least 1, got -5"),
        (["--budget", "-1"], "`budget` must be a positive number of seconds"),
        (["--evaluations", "-3"], "`evaluations` must be a whole number of at least 1, got -3"),
        (["--evaluations", "3", "--budget", "2"], "`evaluations` must be left out where there is a budget of seconds"),
        (["--batch-size", "3"], "`batch_size` must be None unless"),
    ],
)
def test_options(monkeypatch, capsys, tmp_path, options, words):
    out = tmp_path / "run"
    arguments = ["infer", SCHOOLS / "model.py", "--data", SCHOOLS / "data.json", "--out", out, *options]
    assert words in refused(monkeypatch, capsys, out, *arguments)


def test_missing_files_and_folders(monkeypatch, capsys, tmp_path):
    out, model, data = tmp_path / "run", SCHOOLS / "model.py", SCHOOLS / "data.json"
    assert "must be a file" in refused(monkeypatch, capsys, out, "infer", tmp_path / "no.py", "--out", out)
    assert "must be a file" in refused(
        monkeypatch, capsys, out, "infer", model, "--data", tmp_path / "no.json", "--out", out
    )
    (tmp_path / "d.txt").write_text("1")
    assert ".npz or .csv" in refused(
        monkeypatch, capsys, out, "infer", model, "--data", tmp_path / "d.txt", "--out", out
    )
    under_a_file = tmp_path / "d.txt" / "run"
    assert "folder that can be written" in refused(
        monkeypatch, capsys, out, "infer", model, "--data", data, "--out", under_a_file
    )
    assert "thalweg infer wrote" in refused(monkeypatch, capsys, out, "sample", tmp_path, "--out", tmp_path / "x.npz")
    assert "thalweg infer wrote" in refused(monkeypatch, capsys, out, "report", tmp_path)


def test_a_full_disk_leaves_nothing_half_written(monkeypatch, capsys, tmp_path):
    out = tmp_path / "run"

    def full(posterior, path):
        report(posterior, path)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(thalweg.cli, "write_report", full)
    model = SCHOOLS.parent / "banana" / "model.py"
    arguments = ("infer", model, "--out", out, "--flow", "gaussian", "--quiet")
    status, _, stderr = command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert stderr.startswith("thalweg: `out` cannot be written: No space left on device")
    assert stderr.count("\n") == 1
    # the fit is not lost
    assert [f.name for f in out.iterdir()] == ["checkpoint.thalweg"]
    monkeypatch.setattr(thalweg.cli, "write_report", report)
    assert command(monkeypatch, capsys, *arguments, "--resume")[0] == 3  # a Gaussian is not enough for it
    assert "checkpoint.thalweg" not in [f.name for f in out.iterdir()]

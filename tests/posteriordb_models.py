"""Seven posteriors of posteriordb, whose data and truths are in tests/data."""

import json
from pathlib import Path

import numpy as np
from benchmarks import _posteriordb as of

import thalweg as tw

HERE = Path(__file__).parent
RECORDS = json.loads((HERE / "data" / "posteriordb.json").read_text())["posteriors"]
MODELS = {name: of.MODELS[name] for name in RECORDS}


def make(name):
    """The target of one posterior."""
    density, supports = MODELS[name]
    data = RECORDS[name]["data"]
    if data is None:
        data = json.loads((HERE.parent / "examples" / "radon" / "data.json").read_text())
    return tw.from_function(density, supports, {k: np.asarray(v) for k, v in data.items()}, name=name)


def as_matrix(name, draws):
    """Draws as columns in the reference's order of names."""
    return of.as_matrix(RECORDS[name]["names"], draws)


def as_params(name, row):
    """One row of the reference's columns as a dict of parameters."""
    return of.as_params(RECORDS[name]["names"], row, make(name).space.shapes)

"""Eight schools twice in one process, the second time with other numbers of the same shapes; prints its seconds."""

import json
import time
from pathlib import Path

import numpy as np

import thalweg as tw

EXAMPLE = Path(__file__).parents[1] / "examples" / "eight_schools"


def fit(target):
    """To 10,000 corrected draws."""
    start = time.perf_counter()
    tw.infer(target, progress=False).resample(10_000)
    return time.perf_counter() - start


if __name__ == "__main__":
    data = {k: np.asarray(v, float) for k, v in json.loads((EXAMPLE / "data.json").read_text()).items()}
    target = tw.from_file(EXAMPLE / "model.py", data)
    fit(target)
    print(fit(target.replace_data(data | {"y": data["y"][::-1].copy()})))

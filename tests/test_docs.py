"""Pages that say that they run, run; and what they say of their numbers is so."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_drawing_or_scoring(capsys):
    page = (DOCS / "draw-or-score.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, "draw-or-score.md", "exec"), names)
    assert "sd of y" in capsys.readouterr().out
    assert names["posterior"].verdict.ok
    assert -0.02 < names["posterior"].elbo.value < 0.01
    assert -0.01 < names["forward"] < 0.05
    widths = names["widths"]
    exact = np.sqrt(0.25 * 2 + 0.25)
    assert widths["exact"] == pytest.approx(exact, rel=0.03)
    assert widths["mean field, KL(q || p)"] < 0.85 * exact
    assert widths["mean field, KL(p || q)"] == pytest.approx(exact, rel=0.06)
    assert widths["iaf, KL(q || p)"] == pytest.approx(exact, rel=0.06)
    assert not names["narrow"].verdict.raw_ok

"""What a problem with known answers is."""

import dataclasses
from collections.abc import Callable

import numpy as np

from thalweg.targets import Target


@dataclasses.dataclass(frozen=True)
class Problem:
    """A target with known answers; its one parameter is `x` in R^d.

    Attributes:
        name: of it.
        target: the log density.
        log_evidence: log of its integral.
        draw: (generator, n) -> exact draws, (n, d).
        centers: of the modes, (k, d); None where there is one.
    """

    name: str
    target: Target
    log_evidence: float
    draw: Callable[[np.random.Generator, int], np.ndarray]
    centers: np.ndarray | None = None

    def coverage(self, x: np.ndarray) -> float:
        r"""How evenly draws (n, d) lie over the modes: $-\sum_k p_k \log_K p_k$, p the shares nearest to each center.

        1 where all have the same share, for modes of equal mass; NaN for one mode.
        Source: Blessing et al. 2024 (entropic mode coverage).
        """
        if self.centers is None:
            return float("nan")
        nearest = np.argmin(((x[:, None] - self.centers) ** 2).sum(2), axis=1)
        share = np.bincount(nearest, minlength=len(self.centers)) / len(x)
        share = share[share > 0]
        return float(-(share * np.log(share)).sum() / np.log(len(self.centers)))

"""What fits and chains share: jitted chunks of steps, progress, signals, checkpoints, status."""

from thalweg.run._checkpoint import Checkpoint
from thalweg.run._limit import Evaluations, Limit
from thalweg.run._progress import Progress
from thalweg.run._run import AbstractJittedProcess, AbstractProcess, RunResult, run
from thalweg.run._signals import insist
from thalweg.run._status import Interrupted, Status

__all__ = [
    "AbstractJittedProcess",
    "AbstractProcess",
    "Checkpoint",
    "Evaluations",
    "Interrupted",
    "Limit",
    "Progress",
    "RunResult",
    "Status",
    "insist",
    "run",
]

"""The rungs behind `flow="auto"`."""

from thalweg.ladder._rungs import Budget, Rung, flow_process, flow_rung, gaussian_rung, gaussian_weights

__all__ = ["Budget", "Rung", "flow_process", "flow_rung", "gaussian_rung", "gaussian_weights"]

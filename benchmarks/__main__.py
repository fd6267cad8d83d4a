"""`python -m benchmarks [--quick] [NAME ...]`: each in a process of its own, results in benchmarks/results.

step         a reverse-KL step of coupling flows, affine and spline, against flowjax, zuko and normflows; memory
conditional  an epoch of maximum likelihood of a conditional spline flow, against flowjax, sbi and zuko
sampling     draws from a 64-d masked autoregressive flow, and densities of an inverse one, against flowjax and zuko
indexed      a step of continuously-indexed flows over one of their inner flows
growth       our step and its compiling as dimension, layers and draws grow
choose       every flow by name on densities of known evidence
cold         the whole command against NumPyro's NUTS
compile      programs compiled, and 64 layers against 4

All of them take about an hour on two idle cores. `--quick` is for trying: few short rounds of the first six,
written to `.benchmarks`. Longer ones, with options of their own (`python -m benchmarks accuracy --help`):

accuracy     is the default answer right, and does it know? --suite NAME
ablation     what each rung of "auto" is worth
evidence     how often the 2-sigma interval of the log evidence covers the truth
"""

import subprocess
import sys

NAMES = ("step", "conditional", "sampling", "indexed", "growth", "choose", "cold", "compile")
QUICK = NAMES[:6]
LONGER = ("accuracy", "ablation", "evidence")

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in LONGER:
        raise SystemExit(subprocess.run([sys.executable, "-m", f"benchmarks.{sys.argv[1]}", *sys.argv[2:]]).returncode)
    if {"-h", "--help"} & set(sys.argv):
        sys.stdout.write(__doc__)
        raise SystemExit
    quick = "--quick" in sys.argv
    known = QUICK if quick else NAMES
    chosen = [a for a in sys.argv[1:] if a != "--quick"] or known
    unknown = [n for n in chosen if n not in known]
    if unknown:
        raise SystemExit(f"benchmarks: `name` must be one of {', '.join((*known, *LONGER))}, got {', '.join(unknown)}")
    for name in chosen:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *["--quick"] * quick], check=True)

"""The rules of the house that no linter knows; each is tried on a planted fault too, so that it is known to bite."""

import ast
import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "thalweg"
MODULES = {
    ".".join(("thalweg", *p.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): p
    for p in sorted(SOURCE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def back_doors(imports: list[tuple[str, str]]) -> list[str]:
    """Imports, (importer, imported), between rooms that name a module deeper than the room."""
    return [f"{a} -> {b}" for a, b in imports if room_of(a) != room_of(b) and b != room_of(b)]


def test_rooms_are_entered_by_their_front():
    graph = grimp.build_graph("thalweg", cache_dir=None)
    # of `from thalweg.room import name`, grimp sees the room; of a deeper one it sees the file
    imports = [(a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)]
    assert len(imports) > 50
    assert back_doors(imports) == []


def test_a_back_door_is_seen():
    assert (
        back_doors([("thalweg.flows", "thalweg.bijections"), ("thalweg.bijections._a", "thalweg.bijections._b")]) == []
    )
    assert back_doors([("thalweg.flows", "thalweg.bijections._linear")]) != []


def name_of(node: ast.expr) -> str:
    node = node.value if isinstance(node, ast.Subscript) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def class_faults(trees: dict[str, ast.Module]) -> list[str]:
    """Classes that are neither abstract and never built, nor built and never subclassed."""
    own = {c.name for tree in trees.values() for c in ast.walk(tree) if isinstance(c, ast.ClassDef)}
    faults = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = [name_of(b) for b in node.bases]
                faults += [
                    f"{module}: {node.name} subclasses {b}, which is not Abstract..."
                    for b in bases
                    if b in own and not b.startswith("Abstract") and not b.endswith("Error")
                ]
            elif isinstance(node, ast.Call) and name_of(node.func).startswith("Abstract") and name_of(node.func) in own:
                faults.append(f"{module}: builds {name_of(node.func)}")
    return faults


def test_a_class_is_abstract_or_final():
    assert class_faults(TREES) == []


@pytest.mark.parametrize(
    "planted",
    [
        "class A: ...\nclass B(A): ...",
        "class A(Generic[T]): ...\nclass B(A[int]): ...",
        "class AbstractA: ...\nx = AbstractA()",
    ],
)
def test_a_class_fault_is_seen(planted):
    assert class_faults({"m": ast.parse(planted)}) != []
    assert class_faults({"m": ast.parse("class AbstractA: ...\nclass B(AbstractA): ...\nx = B()")}) == []


def statement_faults(trees: dict[str, ast.Module]) -> list[str]:
    """Asserts, prints, bare excepts, unfinished methods, and imports of our own package inside a function."""
    faults = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            where = f"{module}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Assert):
                faults.append(f"{where} assert")
            elif isinstance(node, ast.Call) and name_of(node.func) == "print" and isinstance(node.func, ast.Name):
                faults.append(f"{where} print")
            elif isinstance(node, ast.ExceptHandler) and node.type is None:
                faults.append(f"{where} bare except")
            elif isinstance(node, ast.Name) and node.id == "NotImplementedError":
                faults.append(f"{where} NotImplementedError")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                faults += [f"{where} imports {name} in a function" for name in own_imports(node)]
    return faults


def own_imports(function: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("thalweg" if node.level else node.module or "")
    return [n for n in names if n.split(".")[0] == "thalweg"]


# the package's front loads its doors on first use, so that importing it stays cheap
LAZY_FRONT = {"thalweg"}


def test_statements():
    assert statement_faults({m: t for m, t in TREES.items() if m not in LAZY_FRONT}) == []


@pytest.mark.parametrize(
    "planted",
    [
        "assert x",
        "print(1)",
        "try: pass\nexcept: pass",
        "raise NotImplementedError",
        "def f():\n    from thalweg import infer",
        "def f():\n    import thalweg.flows",
        "def f():\n    from . import x",
    ],
)
def test_a_statement_fault_is_seen(planted):
    assert statement_faults({"m": ast.parse(planted)}) != []


def guest_homes() -> dict[str, set[str]]:
    """Guest -> the modules that may import it, as the contracts in pyproject.toml say."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    homes: dict[str, set[str]] = {}
    for contract in contracts:
        for guest in contract.get("forbidden_modules", []):
            pairs = [i.split(" -> ") for i in contract.get("ignore_imports", [])]
            homes[guest] = {a for a, b in pairs if b == guest}
    return homes


# `_guest` is `import_guest` with its extra
IMPORTERS = ("import_guest", "import_module", "_guest")


def guest_faults(trees: dict[str, ast.Module], homes: dict[str, set[str]]) -> list[str]:
    """Guests imported by name (`import_guest("numpyro", ...)`, which no import graph sees) outside their file."""
    faults = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func) in IMPORTERS and node.args:
                named = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                guest = str(named).split(".")[0]
                if guest in homes and module not in homes[guest]:
                    faults.append(f"{module}:{node.lineno} imports {guest}")
    return faults


def test_guests_stay_in_their_file():
    homes = guest_homes()
    assert homes["optax"] == {"thalweg.fit._optimiser", "thalweg.mcmc._blackjax"}
    assert homes["blackjax"] == {"thalweg.mcmc._blackjax"}
    assert homes["pymc"] == homes["pytensor"] == {"thalweg.targets._pymc"}
    assert homes["httpstan"] == {"thalweg.targets._stan"}
    assert guest_faults(TREES, homes) == []


def test_a_stray_guest_is_seen():
    planted = {"thalweg.flows": ast.parse('import_guest("optax.contrib", "x")')}
    assert guest_faults(planted, {"optax": {"thalweg.fit._optimiser"}}) != []


def missing_rows(exports: list[str], rows: set[str]) -> list[str]:
    """Exports that no row of a contract table is for."""
    return [name for name in exports if name not in rows]


@pytest.mark.parametrize("room", ["bijections", "distributions"])
def test_every_export_has_a_row(room):
    rows = importlib.import_module(f"{room}_rows").EXPORTS
    exports = [n for n in importlib.import_module(f"thalweg.{room}").__all__ if not n.startswith("Abstract")]
    assert len(exports) > 4
    assert missing_rows(exports, rows) == []


def test_a_missing_row_is_seen():
    assert missing_rows(["Planar", "Radial"], {"Planar"}) == ["Radial"]


MACHINE_PATH = re.compile(r"/(?:work|farm|root|home|tmp)/[A-Za-z0-9_.]|[.]library" + r"\b")


def path_faults(texts: dict[str, str]) -> list[str]:
    """Lines that name a path of some machine."""
    return [
        f"{name}:{i}"
        for name, text in texts.items()
        for i, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]


def test_no_file_names_a_path_of_a_machine():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = (
        listed.stdout.split("\n") if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in SOURCE.rglob("*")]
    )
    paths = [ROOT / n for n in names if n and (ROOT / n).is_file() and n not in (".ci/run", "tests/test_house.py")]
    texts = {
        str(p): p.read_text(errors="ignore") for p in paths if p.suffix in TEXT or p.name in ("Makefile", "LICENSE")
    }
    assert len(texts) > 20
    assert path_faults(texts) == []


TEXT = {".py", ".cpp", ".md", ".toml", ".json", ".html", ".jinja", ".css", ".js", ".yml", ".txt"}


def test_a_machine_path_is_seen():
    assert path_faults({"f": "x = '/" + "home/me/data'"}) != []
    assert path_faults({"f": "a/b, https://example.org/work and 3 / tmp"}) == []

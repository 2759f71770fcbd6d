"""The rooms of the package: which of them may import which, and how long a file may be."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "projects" / "hybrid_cascade"
# Lower rooms first: a room may import those of the lines above its own.
FLOORS = [
    {"config", "version", "spinning", "layers", "data", "evaluation"},
    {"modeling"},
    {"converters", "visualization", "swap_heads"},
    {"report"},
    {"engine"},
    {"export", "model_zoo", "moved_names"},
    {"predict"},
    {"commands"},
    {"__main__"},
]
MOST_LINES = 400


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_modules(path: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file imports, at its top or within functions."""
    folder = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("hybrid_cascade") for alias in node.names), path
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0:
            assert not (node.module or "").startswith("hybrid_cascade"), f"{path}: not relative"
            continue
        base = folder[: len(folder) - node.level + 1] + tuple((node.module or "").split("."))
        base = tuple(part for part in base if part)
        for alias in node.names:
            inner = PACKAGE.joinpath(*base, alias.name)
            is_module = inner.is_dir() or inner.with_suffix(".py").exists()
            found.add((*base, alias.name) if is_module else base)
    return found


@pytest.fixture(scope="module")
def imports() -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    return {module_of(path): imported_modules(path) for path in PACKAGE.rglob("*.py")}


def test_no_room_imports_one_of_its_own_floor_or_above(imports):
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    wrong = [
        f"{'.'.join(module)} imports {'.'.join(target)}"
        for module, targets in imports.items()
        for target in targets
        if module and module[0] != target[0] and floor_of[module[0]] <= floor_of[target[0]]
    ]
    assert not wrong


def test_no_files_and_no_rooms_inside_modeling_import_one_another_in_a_circle(imports):
    tuple(TopologicalSorter(imports).static_order())
    rooms: dict[str, set[str]] = {}
    for module, targets in imports.items():
        if module[:1] == ("modeling",) and len(module) > 1:
            targets = {t[1] for t in targets if t[0] == "modeling" and len(t) > 1}
            rooms.setdefault(module[1], set()).update(targets - {module[1]})
    assert {"cascade", "mnc", "semantic", "ensembles"} <= set(rooms)
    tuple(TopologicalSorter(rooms).static_order())


@pytest.mark.parametrize("folder", ["projects", "tests", "benchmarks", "tools"])
def test_no_file_is_longer_than_a_reader_likes(folder):
    kinds = (".py", ".cpp", ".cu", ".h")
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds
    }
    assert lengths
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}

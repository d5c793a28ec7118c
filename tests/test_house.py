"""The rules of the house: style, import directions, file sizes, and words that do not belong."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

THIS = Path(__file__).resolve()
ROOT = THIS.parents[1]
TOP = ("flcl", "configs", "launch", "tests")
TOOLS = Path(sys.executable).parent


def texts() -> list[Path]:
    """Every text file of the project that people read."""
    kinds = {".py", ".md", ".sh", ".toml", ".txt", ".html", ".sbatch", ".yaml", ""}
    found = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in kinds]
    for folder in (*TOP, ".ci"):
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    return sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts)


def sources(folder: str) -> list[Path]:
    return [path for path in texts() if path.suffix == ".py" and path.is_relative_to(ROOT / folder)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_tool(name: str, *words: str) -> subprocess.CompletedProcess:
    command = [TOOLS / name, *words]
    # The import linter reads the packages from the working directory.
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_lint():
    done = run_tool("ruff", "check", ".")
    assert done.returncode == 0, done.stdout


def test_formatting():
    done = run_tool("ruff", "format", "--check", ".")
    assert done.returncode == 0, done.stdout


def test_imports_run_one_way():
    done = run_tool("lint-imports", "--no-cache")
    assert done.returncode == 0, done.stdout


def test_shell_scripts():
    scripts = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
    assert len(scripts) >= 4
    for script in scripts:
        assert subprocess.run(["bash", "-n", script]).returncode == 0, script
    done = run_tool("shellcheck", "--external-sources", *map(str, scripts))
    assert done.returncode == 0, done.stdout


def test_no_file_is_too_long():
    lengths = {path: len(path.read_text().splitlines()) for path in texts()}
    exempt = {ROOT / "LICENSE", ROOT / "constraints.txt"}
    assert not [name_of(p) for p, length in lengths.items() if length > 500 and p not in exempt]
    assert not [name_of(p) for p in sources("flcl") if lengths[p] > 400]
    library = sorted(lengths[p] for p in sources("flcl") if p.name != "__init__.py")
    assert library[len(library) // 2] < 200


def test_no_room_is_too_large():
    """A room is a folder; one inside another is a room of its own."""
    lines: dict[Path, int] = {}
    for path in sources("flcl"):
        lines[path.parent] = lines.get(path.parent, 0) + len(path.read_text().splitlines())
    assert {name_of(room): count for room, count in lines.items() if count > 1700} == {}


def test_nine_functions_in_ten_are_short():
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for path in sources("flcl")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[int(0.9 * len(lengths))] <= 45


def test_entry_points_stay_thin():
    assert not [name_of(p) for p in sources("launch") if len(p.read_text().splitlines()) > 110]


def test_public_names_have_docstrings():
    missing = []
    for path in sources("flcl"):
        tree = ast.parse(path.read_text())
        if path.stat().st_size and not ast.get_docstring(tree):
            missing.append(name_of(path))
        for owner in ast.walk(tree):
            if owner is tree or (isinstance(owner, ast.ClassDef) and _speaks_for_itself(owner)):
                missing += [f"{name_of(path)}: {name}" for name in _undocumented(owner)]
    assert missing == []


def _speaks_for_itself(owner: ast.ClassDef) -> bool:
    """Public, and without a base class or protocol that could carry the docstrings."""
    return not owner.name.startswith("_") and not owner.bases


def _undocumented(owner: ast.Module | ast.ClassDef) -> list[str]:
    return [
        node.name
        for node in owner.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and "overload" not in map(ast.unparse, node.decorator_list)  # the last one is documented
    ]


# What would be about how the project was made, or about one machine, instead of about the project.
FOREIGN = (
    r"(^|[\s'\"`(=])/(work|root|home)/",
    r"pypi\.org|pythonhosted|npmjs\.|debian\.org",
    r"\b(the lead|this session)\b",
    r"\b[iI]ssue #?\d",
    r"\b(TODO|FIXME|XXX)\b",
)


def test_no_foreign_words():
    found = [
        f"{name_of(path)}:{number}: {match.group()}"
        for path in texts()
        if path != THIS and path.name != "LICENSE"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for match in [re.search("|".join(FOREIGN), line)]
        if match
    ]
    assert found == []


def test_addresses_are_of_papers_licences_and_sources():
    allowed = {
        "arxiv.org",
        "doi.org",
        "github.com",
        "tech.zalando.com",
        "www.apache.org",
        "127.0.0.1",
    }
    found = {
        f"{name_of(path)}: {host}"
        for path in texts()
        if path != THIS
        for host in re.findall(r"https?://([\w.-]+)", path.read_text())
        if host not in allowed
    }
    assert found == set()


def test_named_documents_exist():
    """A `.md` file that a text names lies beside it, at the root, or where its path says."""
    missing = [
        f"{name_of(path)}: {name}"
        for path in texts()
        if path != THIS
        for name in sorted(set(re.findall(r"[\w./-]*\w\.md\b", path.read_text())))
        if not (ROOT / name).is_file() and not (path.parent / name).is_file()
    ]
    assert missing == []


def test_files_named_in_documents_exist():
    missing = []
    for path in (path for path in texts() if path.suffix == ".md"):
        text = path.read_text()
        links = re.findall(r"\]\(([^)#:]+)\)", text)
        missing += [f"{name_of(path)}: {x}" for x in links if not (path.parent / x).exists()]
        named = re.findall(r"(?<![\w./-])(?:flcl|configs|launch|tests)/[\w./-]*\w", text)
        missing += [f"{name_of(path)}: {x}" for x in named if not (ROOT / x).exists()]
    assert missing == []


def test_meshes_are_made_in_one_place():
    """And nothing of JAX's past is used: pmap, pjit, a mesh as a context manager."""
    past = r"\b(pmap|pjit|use_mesh|PositionalSharding)\b|with\s+[\w.]*mesh\s*:"
    home = ROOT / "flcl" / "devices" / "mesh.py"
    found = []
    for path in sources("flcl"):
        tree = ast.parse(path.read_text())
        calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
        makers = {"jax.make_mesh", "Mesh", "jax.sharding.Mesh", "sharding.Mesh"}
        if path != home and makers & set(calls):
            found.append(f"{name_of(path)}: makes a mesh")
        if re.search(past, path.read_text()):
            found.append(f"{name_of(path)}: {re.search(past, path.read_text()).group()}")
    assert found == []


def test_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    for requirement in project["dependencies"]:
        assert ">=" in requirement and "==" not in requirement, requirement
        assert "<" not in requirement or requirement.startswith("orbax-checkpoint"), requirement
    assert set(project["optional-dependencies"]) == {"aot", "cuda", "tpu", "test"}


def test_constraints_are_pins_without_addresses():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+( ; .+)?", line) for line in lines)
    pinned = {re.split("==", line)[0].lower().replace("_", "-") for line in lines}
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["test"], "libtpu"]
    for requirement in needed:
        name = re.split(r"[<>=\[]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, name


def test_public_functions_have_types():
    """A type checker knows which kind of run it has: see tests/typed_api.py."""
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).parent / "mypy"
    done = run_tool("mypy", f"--cache-dir={cache}")
    assert done.returncode == 0, done.stdout


def test_import_of_the_package_is_light():
    """Errors on the command line are told before JAX is loaded."""
    code = (
        "import sys, json, flcl, flcl.cli, flcl.settings.bridge, flcl.programs as programs;"
        "programs._help(); flcl.load_config('funlora_digits', {'seed': 1});"
        "print(json.dumps([m for m in ('jax', 'tensorflow', 'orbax', 'matplotlib') "
        "if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout) == [], done.stderr

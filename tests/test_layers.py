"""Imports run one way, along the flow: read from the files themselves, those inside functions included."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

LAYERS = [
    {"errors", "signals", "parts"},
    {"slurm", "dvc", "tracking"},
    {"hierarchy", "progress"},
    {"files"},
    {"distributed"},
    {"config"},
    {"experiments"},
    {"nn"},
    {"networks"},
    {"tokenizer", "generator", "data", "metrics"},
    {"objective", "weights"},
    {"compat"},
    {"training"},
    {"stages"},
    {"reporting"},
    {"mirror"},
    {"cli"}]
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
FILES = sorted(path for path in (ROOT / "restok").rglob("*.py") if path.parent.name != "restok" or path.name != "__init__.py")


def part(module: str) -> str:
    """'restok.nn.rope' belongs to nn."""
    return module.split(".")[1]


def imports(source: str) -> list[str]:
    """The restok modules that a file's text imports, at its top or anywhere else."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            modules += [f"restok.{alias.name}" for alias in node.names] if node.module == "restok" else [node.module]
    return [name for name in modules if name.split(".")[0] == "restok"]


def fault(importer: str, imported: str) -> bool:
    """A part may import itself, and what lies in a lower layer."""
    return importer != imported and LAYER[imported] >= LAYER[importer]


def name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_the_page_has_every_layer():
    table = (ROOT / "docs/development.md").read_text().partition("| layer |")[2].partition("\n\n")[0]
    assert [set(row.split(" | ")[0].strip("| ").split(", ")) for row in table.splitlines()[2:]] == LAYERS


def test_the_reader_sees_every_kind_of_import():
    source = ("import restok.nn.rope\nimport torch\nfrom restok import config\n"
              "def f():\n    from restok.tokenizer.model import ResTok")
    assert imports(source) == ["restok.nn.rope", "restok.config", "restok.tokenizer.model"]


def test_the_rule_refuses_upward_and_sideways():
    assert fault("nn", "tokenizer") and fault("generator", "tokenizer") and fault("config", "nn")
    assert not fault("tokenizer", "nn") and not fault("tokenizer", "tokenizer") and not fault("weights", "generator")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_imports_only_from_lower_layers(path):
    own = part(name(path))
    assert own in LAYER, f"{own} has no layer"
    faults = [module for module in imports(path.read_text()) if fault(own, part(module))]
    assert faults == []


def without_encoding(source: str) -> list[int]:
    """The lines of a file's text that read or write text as the locale would have it."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        binary = ast.unparse(node.func) in ("os.open", "Image.open", "archive.open", "webbrowser.open") or any(
            isinstance(word, ast.Constant) and "b" in str(word.value) for word in node.args)
        if (method == "open" and not binary) or len(node.args) < {"read_text": 1, "write_text": 2}.get(method, 0):
            lines.append(node.lineno)
    return lines


def test_text_is_utf8_whatever_the_locale():
    assert without_encoding("p.read_text()\np.write_text(a)\nopen(p)\np.open('a')\nPath(p).open()") == [1, 2, 3, 4, 5]
    assert without_encoding("p.read_text('utf-8')\np.write_text(a, 'utf-8')\nopen(p, 'rb')\np.open(encoding='utf-8')") == []
    assert {name(path): lines for path in FILES if (lines := without_encoding(path.read_text("utf-8")))} == {}


def test_every_part_but_the_newest_is_there():
    """The walk found the package: a wrong folder would pass every other test here."""
    assert {"hierarchy", "config", "nn", "networks", "tokenizer", "generator", "objective", "training", "reporting"} <= {
        part(name(path)) for path in FILES}


def test_what_the_workflow_reads_never_loads_torch():
    """Tables, pictures, parameters and guidance scales: rules and reports start at once, and on machines without torch."""
    light = [path for path in FILES if part(name(path)) in ("hierarchy", "config", "errors", "files", "progress", "reporting")]
    modules = ["restok", "restok.generator.guidance", *(name(path).removesuffix(".__init__") for path in light)]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "torch was imported"


def test_the_workflow_itself_never_imports_torch():
    rules = [path for path in (ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")) if path.exists()]
    lines = [line.split("#")[0].split() for path in rules for line in path.read_text().splitlines()]
    imported = {words[1].split(".")[0] for words in lines if len(words) > 1 and words[0] in ("import", "from")}
    assert "torch" not in imported
    modules = sorted({words[1] for words in lines if len(words) > 1 and words[0] in ("import", "from")
                      and words[1].startswith("restok")})
    code = "import sys" + "".join(f", {module}" for module in modules) + "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0, modules

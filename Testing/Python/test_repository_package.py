# SPDX-License-Identifier: Apache-2.0
"""What Slicer's package would hold, and whether it works from there."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "BARLSegmentation"
spec = importlib.util.spec_from_file_location("cmake_lists", REPOSITORY / "Testing" / "cmake_lists.py")
cmake_lists = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cmake_lists)


@pytest.mark.parametrize("variable", [cmake_lists.SCRIPTS, cmake_lists.RESOURCES])
def test_cmake_lists_hold_exactly_what_is_in_the_folder(variable):
    listed, present = cmake_lists.listed(variable), cmake_lists.present(variable)
    assert len(listed) == len(set(listed)), "a file is listed twice"
    assert set(listed) == set(present), "run `make cmake-lists`"


@pytest.mark.parametrize(
    "path", [REPOSITORY / "CMakeLists.txt", MODULE / "CMakeLists.txt", REPOSITORY / "Testing" / "CMakeLists.txt"]
)
def test_cmake_files_hold_commands_and_nothing_else(path):
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    while (shorter := re.sub(r"[A-Za-z_]\w*\s*\([^()]*\)|\([^()]*\)(?=[^()]*\))", "", text)) != text:
        text = shorter
    assert not text.strip(), "left over outside of commands, as by a merge"


def test_a_forgotten_file_is_noticed_and_written(tmp_path):
    module = tmp_path / "BARLSegmentation"
    (module / "barl").mkdir(parents=True)
    (module / "barl" / "new.py").touch()
    (module / "CMakeLists.txt").write_text(
        f"set({cmake_lists.SCRIPTS}\n  )\nset({cmake_lists.RESOURCES}\n  )\n", encoding="utf-8"
    )
    assert cmake_lists.listed(cmake_lists.SCRIPTS, module) == []
    assert cmake_lists.present(cmake_lists.SCRIPTS, module) == ["barl/new.py"]
    cmake_lists.write(module)
    assert cmake_lists.listed(cmake_lists.SCRIPTS, module) == ["barl/new.py"]


# ---------------------------------------------------------------------------------------------------------------------
# The three descriptions of the extension say the same


def cmake_value(name: str) -> str:
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(rf"set\({name} \"?([^\")]*)\"?\)", text).group(1)


def s4ext() -> dict[str, str]:
    lines = (REPOSITORY / "BARLExtension.s4ext").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return {key: value for key, _, value in pairs}


def catalog() -> dict:
    return json.loads((REPOSITORY / "BARLExtension.json").read_text(encoding="utf-8"))


def test_s4ext_repeats_the_cmake_file():
    found = s4ext()
    for key in (
        "homepage",
        "category",
        "contributors",
        "description",
        "iconurl",
        "screenshoturls",
        "depends",
        "keywords",
    ):
        assert found[key] == cmake_value(f"EXTENSION_{key.upper()}"), key


def test_catalogue_entry_follows_the_schema_and_the_s4ext():
    entry, found = catalog(), s4ext()
    allowed = {"$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "dicom_support_rule"}
    allowed |= {"build_subdirectory", "enabled", "tier"}  # schema v1.0.2: nothing else may be there
    assert set(entry) <= allowed
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["scm_type"] in ("git", "local") and entry["enabled"] is True and 1 <= entry["tier"] <= 5
    assert re.match(r"(https|git)://.*/Slicer[^/]*$", entry["scm_url"])
    assert (entry["category"], entry["scm_url"], entry["scm_revision"], entry["scm_type"]) == (
        found["category"],
        found["scmurl"],
        found["scmrevision"],
        found["scm"],
    )
    assert entry["dicom_support_rule"] == found["dicom_support_rule"]
    assert " ".join(entry["build_dependencies"]) == found["depends"]
    assert str(entry["tier"]) == found["tier"]


def test_all_addresses_of_the_repository_begin_alike():
    """They are replaced together once it is public (docs/releasing.md)."""
    base = catalog()["scm_url"].removesuffix(".git")
    for name in ("CMakeLists.txt", "BARLExtension.s4ext", "BARLExtension.json"):
        lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
        ours = [line for line in lines if not line.startswith("#") and "$schema" not in line]
        addresses = re.findall(r"https://[^\s\"]+", "\n".join(ours))
        assert addresses and all(address.startswith(base) for address in addresses), name


def test_icons_have_the_size_slicer_asks_for():
    for path in (REPOSITORY / "Resources/Icons/BARLExtension.png", MODULE / "Resources/Icons/BARLSegmentation.png"):
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (128, 128)


# ---------------------------------------------------------------------------------------------------------------------
# The package as Slicer lays it out


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Path:
    """The listed files, and no other, where Slicer 5.12 would install them."""
    place = tmp_path_factory.mktemp("package") / "lib" / "Slicer-5.12" / "qt-scripted-modules"
    for name in cmake_lists.listed(cmake_lists.SCRIPTS) + cmake_lists.listed(cmake_lists.RESOURCES):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODULE / name, place / name)
    return place


def run_staged(staged: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """A fresh interpreter that finds the staged files and the libraries, never the source tree."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(staged)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=staged.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


IMPORT_ALL = f"""
import importlib, sys
from pathlib import Path
sys.path[:] = [entry for entry in sys.path if not entry.startswith({str(MODULE)!r})]
import barl
root = Path(barl.__file__).parent
assert "qt-scripted-modules" in str(root), root
wanted = sys.argv[1:]
names = [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in sorted(root.rglob("*.py"))]
names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
assert len(names) > 20
for name in names:
    if not wanted or name in wanted or name.partition(".")[2].partition(".")[0] in wanted:
        importlib.import_module(name)
print(*(name for name in sys.modules if "." not in name))
"""


def test_whole_engine_imports_from_the_package(staged):
    done = run_staged(staged, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout.split()


def test_slicer_side_brings_in_no_heavy_library(staged):
    border = ("barl.worker.client", "barl.worker.messages")
    done = run_staged(staged, "-c", IMPORT_ALL, "errors", "progress", "images", "project", *border)
    assert done.returncode == 0, done.stderr
    # Not tqdm: pydicom, which is Slicer's own, imports it where it finds it.
    heavy = {"torch", "monai", "jsonschema", "matplotlib", "psutil", "safetensors", "pandas"}
    assert not heavy & set(done.stdout.split())


def test_worker_answers_from_the_package(staged):
    talk = (
        "import sys, barl.worker.client as client, barl.worker.messages as messages\n"
        "with client.WorkerProcess() as worker:\n"
        "    worker.call(messages.SayHello())\n"
        "print(client.__file__, 'torch' in sys.modules)\n"
    )
    done = run_staged(staged, "-c", talk)
    assert done.returncode == 0, done.stderr
    where, torch_here = done.stdout.split()
    assert where.startswith(str(staged)) and torch_here == "False"


def test_command_line_answers_from_the_package(staged):
    done = run_staged(staged, "-c", "import sys; from barl.cli import main; sys.exit(main())", "--help")
    assert done.returncode == 0, done.stderr
    for command in ("project", "add", "train", "predict", "evaluate", "next", "export", "models"):
        assert command in done.stdout


def test_what_only_researchers_use_is_left_out(staged):
    names = {path.relative_to(staged).as_posix() for path in staged.rglob("*.py")}
    assert not [name for name in names if name.startswith(cmake_lists.NOT_INSTALLED)]
    assert {
        "barl/cli/parser.py",
        "barl/methods/barl.py",
        "barl/methods/dbisl.py",
        "barl/methods/supervised.py",
    } <= names


def requirements() -> set[str]:
    """Libraries that Slicer's package has installed for it."""
    lines = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {re.match(r"[\w.-]+", line).group() for line in lines if line and not line.startswith("#")}


def test_the_package_imports_nothing_that_slicer_does_not_install(staged):
    """Imports within functions included: what fails there fails in the clinician's hands."""
    slicers_own = {"numpy", "scipy", "SimpleITK", "packaging", "pydicom", "slicer", "qt", "ctk", "vtk", "SampleData"}
    packages = {"barl", "BARLSegmentation", "BARLSegmentationLib"}
    allowed = sys.stdlib_module_names | slicers_own | packages | requirements() | {"torch", "PyTorchUtils"}
    allowed |= {"tqdm", "threadpoolctl", "_typeshed"}  # the first two are done without, the last is for type checkers
    allowed |= {"highdicom", "skimage", "nnunetv2"}  # where they are missing, one sentence says so
    for path in staged.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                where = f"{path.relative_to(staged)}:{node.lineno} imports {name}"
                assert name.partition(".")[0] in allowed, where
                assert not name.startswith(("barl.demo", "barl.benchmark", "barl.methods.peers")), where
                assert not name.startswith("barl.report") or path.parent.name == "api", where  # looked for before


# Libraries of a developer's environment that Slicer's Python lacks: the staged package must do without them.
WITHOUT_OTHERS = f"""
import sys
sys.path[:] = [entry for entry in sys.path if not entry.startswith({str(MODULE)!r})]
absent = "tqdm threadpoolctl matplotlib h5py nilearn pandas sklearn nibabel pooch"
sys.modules.update(dict.fromkeys(absent.split()))
from barl.cli import main
sys.exit(main())
"""


def barl_staged(staged: Path, *words: object, code: int = 0) -> dict:
    done = run_staged(staged, "-c", WITHOUT_OTHERS, *map(str, words), "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_the_package_trains_and_predicts_with_a_model_of_any_method(staged, tmp_path):
    with zipfile.ZipFile(Path(__file__).parent / "data" / "project-of-0.1.0.zip") as packed:
        packed.extractall(tmp_path)
    project, scan = tmp_path / "project", tmp_path / "scans" / "shape5.nii.gz"
    model = project / "models" / "model_0002"
    assert json.loads((model / "model.json").read_text(encoding="utf-8"))["method"] == "cps"
    words = ["--model", model, "--output", tmp_path / "label.nii.gz", "--device", "cpu"]
    assert barl_staged(staged, "predict", *words, scan)["volumes"]
    refused = barl_staged(staged, "train", project, "--method", "cps", "--iterations", 2, code=2)["error"]
    assert "no method 'cps'" in refused["message"] and "repository" in refused["remedy"]
    tiny = ["--iterations", 2, "--device", "cpu", "--set", "validations=0"]
    assert barl_staged(staged, "train", project, *tiny)["model"] == "model_0003"


OPEN_MODULE = f"""
import sys
sys.path[:] = [entry for entry in sys.path if not entry.startswith({str(MODULE)!r})]
sys.path.insert(0, {str(REPOSITORY / "Testing" / "SlicerHost")!r})
import slicerhost
slicerhost.install()
import slicer
from slicerhost.host import Host
host = Host(testing=True)
host.loadModule(sys.argv[1])
panels = slicer.modules.BARLSegmentationWidget.panels
models = panels["Predict"].ui.modelComboBox
print(*panels)
print(*(models.itemText(n) for n in range(models.count)), sep=";")
print(*(str(module.__file__) for name, module in sys.modules.items() if name.startswith("BARLSegmentationLib")))
host.close()
"""


@pytest.mark.host
def test_module_opens_from_the_package(staged):
    for library in ("slicer", "PySide6"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed (the host extra)")
    done = run_staged(staged, "-c", OPEN_MODULE, str(staged / "BARLSegmentation.py"))
    assert done.returncode == 0, done.stderr
    panels, models, files = done.stdout.splitlines()[-3:]
    assert panels.split() == ["Project", "Cases", "Review", "Train", "Predict", "Setup"]
    assert "Hippocampus (demonstration)" in models, "the model came along"
    assert files and all(path.startswith(str(staged)) for path in files.split())

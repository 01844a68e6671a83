"""What must hold for the repository as a whole: sizes, links, metadata, documented commands."""

import ast
import configparser
import contextlib
import functools
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted([*ROOT.glob("mrcnn/**/*.py"), *ROOT.glob("lesion/**/*.py")])
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("weights/*.md")])
COMMANDS = [path for path in MODULES if 'if __name__ == "__main__":' in path.read_text("utf-8")]
LARGEST_FILE = 25 * 1024**2
# Packages whose module has another name than the distribution that installs it.
DISTRIBUTIONS = {
    "IPython": "ipython",
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
EXAMPLE_DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def repository_files() -> tuple[Path, ...]:
    """Files that are tracked, or would be by the next `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot list the files of this tree: {error}")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


@functools.cache
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirement_names(lines: str) -> set[str]:
    """Lower-case distribution names of requirement lines, comments left out."""
    matches = (re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line) for line in lines.splitlines())
    return {match.group(1).lower() for match in matches if match}


@functools.cache
def help_text(script: str, *arguments: str) -> str:
    """What `python script [arguments] --help` prints when started from another directory."""
    finished = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments, "--help"],
        cwd=ROOT.parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, f"python {script} --help failed:\n{finished.stderr}"
    return finished.stdout


@functools.cache
def help_text_here(script: str) -> str:
    """The same in this process, for scripts that load TensorFlow: once is enough."""
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [script, "--help"])
        patch.syspath_prepend((ROOT / script).parent)
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    printed.seek(0)
    return printed.read()


def shell_commands(text: str) -> list[str]:
    """Commands of a document's ```sh blocks, continued lines joined, comments left out."""
    commands = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        commands += [line.strip() for line in lines if line.strip() and line.strip()[0] != "#"]
    return commands


def documented_commands() -> list[str]:
    documents = [ROOT / name for name in EXAMPLE_DOCUMENTS] + sorted(ROOT.glob("docs/**/*.md"))
    texts = [path.read_text(encoding="utf-8") for path in documents if path.is_file()]
    return sorted({command for text in texts for command in shell_commands(text)})


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("package", ["mrcnn", "lesion"])
def test_architecture_names_every_module(package):
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition(f"## Modules of `{package}`")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+\*?)`", section)
    modules = {path.stem for path in ROOT.glob(f"{package}/*.py")} - {"__init__"}
    assert not [name for name in modules if not any(fnmatch(name, each) for each in named)]


@pytest.mark.parametrize("path", sorted(ROOT.glob("mrcnn/**/*.py")), ids=relative)
def test_library_knows_nothing_of_lesions(path):
    assert "lesion" not in imported_modules(path)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_text_files_name_their_encoding(path):
    """Or what is written and read would depend on the locale."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        opens = isinstance(call.func, ast.Name) and call.func.id == "open"
        texts = getattr(call.func, "attr", None) in ("read_text", "write_text")
        binary = any("b" in ast.unparse(argument) for argument in call.args[1:])
        if (opens and not binary) or texts:
            assert "encoding" in {keyword.arg for keyword in call.keywords}, ast.unparse(call)


def imported_modules(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, also inside its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_every_imported_package_is_declared():
    imported = set().union(*(imported_modules(path) for path in MODULES))
    imported -= {"mrcnn", "lesion", *sys.stdlib_module_names}
    extras = "\n".join(setup_cfg()["options.extras_require"].values())
    declared = requirement_names(setup_cfg()["options"]["install_requires"] + "\n" + extras)
    needed = {DISTRIBUTIONS.get(name, name).lower() for name in imported}
    assert not needed - declared, "imported but not in setup.cfg"


def test_requirements_cover_the_packages_needs():
    listed = requirement_names((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    extras = setup_cfg()["options.extras_require"]
    needs = setup_cfg()["options"]["install_requires"] + extras["imgaug"] + extras["dev"]
    assert requirement_names(needs) <= listed


def test_no_file_is_large():
    large = [relative(path) for path in repository_files() if path.stat().st_size > LARGEST_FILE]
    assert not large


def test_no_image_of_a_data_set():
    pattern = re.compile(r"(ISIC_\d{7}|IMD\d{3}).*\.(jpe?g|png|bmp|tiff?|dcm)$", re.IGNORECASE)
    assert not [relative(path) for path in repository_files() if pattern.search(path.name)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_relative_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)", text)
    targets += re.findall(r"""<(?:img|a)\s[^>]*(?:src|href)=["']([^"']+)["']""", text)
    local = [target.partition("#")[0] for target in targets if not re.match(r"\w+:", target)]
    missing = [target for target in local if target and not (path.parent / target).exists()]
    assert not missing, f"{relative(path)} links to what does not exist"


def test_one_version_everywhere():
    assert setup_cfg()["metadata"]["version"] == "attr: mrcnn.__version__"
    source = (ROOT / "mrcnn" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', source, flags=re.MULTILINE)
    assert version, "mrcnn/__init__.py states no __version__"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, flags=re.MULTILINE).group(1) == version.group(1)


def test_console_scripts_exist():
    for line in setup_cfg()["options.entry_points"]["console_scripts"].split("\n"):
        if line:
            module, _, function = line.partition("=")[2].strip().partition(":")
            source = ROOT.joinpath(*module.split(".")).with_suffix(".py")
            assert f"def {function}(" in source.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", COMMANDS, ids=relative)
def test_command_explains_itself_from_any_directory(path):
    assert "usage:" in help_text(relative(path)).lower()


@pytest.mark.parametrize("target", ["train-boundary", "train-attributes", "train-diagnosis"])
def test_trainings_of_the_makefile_parse(target):
    """Whoever renames an option would not notice otherwise before an hour of training."""
    from lesion.train_options import parse

    listed = subprocess.run(
        ["make", "-n", target, "DATA=."], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = listed.stdout.replace("\\\n", " ").splitlines()
    trainings = [line for line in lines if "lesion/train.py" in line]
    assert trainings
    for line in trainings:
        _, options = re.sub(r"\$\([^)]*\)", "weights.h5", line).split("lesion/train.py")
        assert parse(shlex.split(options)).task == target.partition("-")[2]


@pytest.mark.parametrize("command", documented_commands())
def test_documented_command_parses(command):
    words = shlex.split(command, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):  # VARIABLE=value before the command
        del words[0]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        named = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
        assert named <= set(re.findall(r"^([\w-]+)[\w -]*:", makefile, flags=re.MULTILINE))
        return
    if words[0] == "lesion":
        script, subcommand, rest = "lesion/cli.py", words[1:2], words[2:]
    elif re.search(r"(^|/)python3?(\.\d+)?$", words[0]) and words[1].endswith(".py"):
        script, subcommand, rest = words[1], [], words[2:]
    else:
        return
    assert (ROOT / script).is_file(), f"{script} does not exist"
    flags = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    if flags:
        light = script.startswith("lesion/")
        text = help_text(script, *subcommand) if light else help_text_here(script)
        known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))
        assert flags <= known, f"the --help of {script} does not list them"

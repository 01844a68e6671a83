"""What `lesion join` says of files that are no networks; joining itself is in test_members."""

import pytest

from lesion.join import main
from mrcnn.weights import save_arrays


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.h5", None, "gone.h5"),
        ("notes.h5", "no network", "notes.h5"),
        ("boundary.h5", {"task": "boundary"}, "does not hold weights of the diagnosis task, but"),
    ],
)
def test_files_that_are_no_classifiers(tmp_path, monkeypatch, capsys, name, content, message):
    monkeypatch.chdir(tmp_path)
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content:
        save_arrays(tmp_path / name, {}, content)
    command = [f"--weights={name}", "--weights=other.h5", "--dataset=data", "--out=joined"]
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lesion join" in line]
    assert message in line and "Errno" not in line and "split" not in line
    assert not (tmp_path / "joined").exists()

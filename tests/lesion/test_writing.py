"""Folders of results that one command at a time writes to."""

import pytest

from lesion.writing import writing_alone

pytest.importorskip("fcntl", reason="this system has no locks of folders")


@pytest.mark.parametrize("other", ["out", "link"])
def test_a_second_command_is_refused_until_the_first_has_ended(tmp_path, other):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    with writing_alone(tmp_path / "masks", tmp_path / "out"):
        with pytest.raises(BlockingIOError, match=f"writes its results to {tmp_path / 'out'} at"):
            with writing_alone(tmp_path / other):
                pass
    with writing_alone(tmp_path / other):
        pass


def test_a_folder_that_is_given_twice_is_no_other(tmp_path):
    with writing_alone(tmp_path / "out", tmp_path / "out"):
        (tmp_path / "out" / "a").touch()
    assert (tmp_path / "out" / "a").is_file()


def test_what_is_not_used_is_not_left(tmp_path):
    (tmp_path / "mine").mkdir()
    with writing_alone(tmp_path / "new" / "out", tmp_path / "mine"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_is_left_of_a_command_that_is_refused(tmp_path):
    with writing_alone(tmp_path / "out"):
        with pytest.raises(BlockingIOError):
            with writing_alone(tmp_path / "masks", tmp_path / "out"):
                pass
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

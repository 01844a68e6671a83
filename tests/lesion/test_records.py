"""Tests for lesion.records."""

import os

import pytest

from lesion.records import read_record, stamp_of, write_record


def test_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "r.json", {"files": {"a": [1, 2]}}, "things")
    assert read_record(tmp_path / "r.json", "things") == {"files": {"a": [1, 2]}}


def test_no_record_is_an_empty_one(tmp_path, caplog):
    assert read_record(tmp_path / "r.json", "things") == {}
    assert not caplog.text


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_unusable_record_is_named(tmp_path, content, caplog):
    (tmp_path / "r.json").write_bytes(content)
    assert read_record(tmp_path / "r.json", "things") == {}
    assert f"The record of things {tmp_path / 'r.json'} is unusable" in caplog.text


def test_record_that_cannot_be_written_is_named(tmp_path, caplog):
    (tmp_path / "file").touch()
    write_record(tmp_path / "file" / "r.json", {}, "things")
    assert "The record of things" in caplog.text and "cannot be written" in caplog.text


def test_stamp_changes_with_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12")
    os.utime(path, ns=(0, 5))
    assert stamp_of(path) == [2, 5]

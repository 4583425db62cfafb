"""The fast loop: each process has files of its own, and each file is in one process."""

from pathlib import Path

import pytest

from tests.file_shares import find_files, is_of_another_process, shares

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_file_has_one_process_and_the_sizes_are_nearly_equal(count):
    sizes = {Path(f"test_{number}.py"): number % 7 * 100 + 10 for number in range(60)}
    found = shares(sizes.items(), count)
    assert sorted(file for share in found for file in share) == sorted(sizes)
    totals = [sum(sizes[file] for file in share) for share in found]
    assert max(totals) - min(totals) <= max(sizes.values())
    assert found == shares(reversed(sizes.items()), count)


def test_without_other_processes_all_files_are_run(monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert not any(is_of_another_process(file, TESTS) for file in find_files(TESTS))


def test_each_process_has_the_files_that_the_others_have_not(monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    found = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        found.append({f for f in find_files(TESTS) if not is_of_another_process(f, TESTS)})
    assert found[0] and found[1] and not found[0] & found[1]
    assert found[0] | found[1] == set(find_files(TESTS))


def test_packages_of_the_frontend_are_not_searched(tmp_path):
    for name in ("node_modules/a", ".cache", "folder"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "test_it.py").touch()
    assert find_files(tmp_path) == [tmp_path / "folder" / "test_it.py"]

import ntpath
import pickle

from esrgan.errors import ConfigError, LostProcessError, Problem, shorten


def test_errors_from_other_processes_are_the_same():
    for error in (ConfigError([Problem("a.json", "1", "2", "fix"), "b"]), LostProcessError("rank 1 has ended")):
        error.add_note("in task 3")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))
        assert again.__notes__ == ["in task 3"]


def test_problems_are_counted_by_folder_on_windows(monkeypatch):
    monkeypatch.setattr("esrgan.errors.dirname", ntpath.dirname)
    problems = [Problem.failure(rf"C:\in\{number}.png", "is bad", "fix") for number in range(9)]
    assert shorten(problems)[3:] == [r"C:\in: 6 more with the same remedy"]


def test_each_problem_stays_on_one_line():
    error = ConfigError(["a\nb.png: x", Problem("c\nd\x1b[2J.png", "1", "2")])
    assert str(error).splitlines() == ["a b.png: x", "c d\N{REPLACEMENT CHARACTER}[2J.png: expected 1, got 2"]

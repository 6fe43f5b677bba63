import pytest

from fedmd.cli.main import main


def call(capsys, *arguments):
    """Exit code, stdout and stderr of `fedmd report ...`."""
    with pytest.raises(SystemExit) as exit:
        main(["report", *map(str, arguments)])
    return exit.value.code, *capsys.readouterr()


def test_writes_into_the_folder_or_where_it_is_told(tmp_path, run_folder, capsys):
    run = run_folder(tmp_path / "run")
    assert call(capsys, run) == (0, f"report: {run / 'report.html'}\n", "")
    elsewhere = tmp_path / "new" / "page.html"
    assert call(capsys, run, "--output", elsewhere)[0] == 0
    assert elsewhere.read_bytes() == (run / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "takes one PATH"),
        (["a", "b"], "takes one PATH"),
        (["."], "no finished run; expected summary.json of a run"),
        (["nowhere"], "is not a folder"),
        ([".", "--fast"], "--fast: unknown option"),
        ([".", "--output"], "takes the name of the file"),
    ],
)
def test_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, error = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in error and error.count("\n") == 1 and "Traceback" not in error

"""What the scripts take that make rows and figures of a study: python -m simulations.NAME STUDY --out FOLDER."""

import argparse
from pathlib import Path

import fedmd
from fedmd.report.results import Study


def study_and_folder(description: str | None) -> tuple[Study, Path]:
    """The study that the command line names, and the folder for what is made of it, which is there afterwards."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    study = fedmd.load(arguments.study)
    if not isinstance(study, Study):
        parser.error(f"{arguments.study} is a run; the folder of a study is wanted")
    arguments.out.mkdir(parents=True, exist_ok=True)
    return study, arguments.out

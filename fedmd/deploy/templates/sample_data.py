#!/usr/bin/env python3
"""Give every node images of run.toml's own data set, to try this folder without data of yours: python sample_data.py

Each nodes/NAME.toml names data/NAME.parquet; the images are those that a simulation of run.toml would have streamed to
that node, for as many rounds. What is there already is kept.
"""

import shlex
import tomllib
from pathlib import Path

from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.runs.compose import compose

HERE = Path(__file__).resolve().parent


def main() -> None:
    overrides = tomllib.loads((HERE / "run.toml").read_text())["overrides"]
    config = compose(shlex.split(overrides)).config
    data = load_federated_data(config)
    for node in sorted((HERE / "nodes").glob("*.toml")):
        path = HERE / "data" / f"{node.stem}.parquet"
        if not path.exists():
            write_parquet(data.streams.sent(tomllib.loads(node.read_text())["client"], config.stream.rounds), path)
            print(f"{path} written")


if __name__ == "__main__":
    main()

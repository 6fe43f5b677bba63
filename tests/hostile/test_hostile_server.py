"""A server that means ill: whatever it asks of a deployed node, nothing it names is opened, imported or reached."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedmd.config import RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.flower.client.app import app
from fedmd.flower.wire.header import HEADER, INFO
from fedmd.flower.wire.samples import STREAM
from fedmd.flower.wire.updates import UPDATE
from fedmd.models import model_for
from tests.conftest import BASE
from tests.flower.wire.examples import asked
from tests.inline import over_the_wire

Make = Callable[..., RunConfig]
Change = dict[str, Any]
CLIENT = 3
MARK = f"hostile_mark_{os.getpid()}"  # in every path, module and address that the server names
PLACE, CODE = f"/tmp/{MARK}/x", f"{MARK}.module:run"

_seen: list[str] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and MARK in (said := f"{event} {arguments!r}"):
        _seen.append(said)


sys.addaudithook(_note)  # Python has no way to take it down again; it looks only while `watched`


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collects each file, import, process, connection, ... with MARK in its name, whoever asks for it."""
    global _seen
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None


CONFIGURATIONS: dict[str, Change] = {
    "a model's factory": {"model": {"name": "custom", "factory": CODE, "params": {"path": PLACE}}},
    "a model named like a path": {"model": {"name": f"../../{MARK}", "width": 2}},
    "a model named like an import": {"model": {"name": CODE}},
    "a huge model": {"model": {"name": "resnet_small", "width": 10**7}},
    "an attack's factory": {"attack": {"name": "custom", "factory": CODE, "params": {}}},
    "an attack with a path": {"attack": {"name": "noise", "fraction": 1.0, "file": PLACE}},
    "an attack's setting that is a path": {"attack": {"name": "noise", "fraction": 1.0, PLACE: 1}},
    "data in a folder": {"data.name": "image_folder", "data.path": PLACE},
    "data in a file": {"data.name": "parquet", "data.path": PLACE},
    "data from the net": {"data.name": "huggingface", "data.path": f"{MARK}/data"},
    "data of a path of its own": {"data.name": "digits", "data.path": PLACE},
    "data's factory": {"data.name": "custom", "data.factory": CODE},
    "a detector's factory": {"defense": {"name": "drop", "detector": "custom", "detector_factory": CODE}},
    "a threshold's file": {"threshold": {"name": "calibrated", "path": PLACE}},
    "a history's factory": {"history": {"name": "custom", "factory": CODE, "params": {}}},
    "a strategy's factory": {"strategy": {"name": "custom", "factory": CODE, "params": {}}},
    "a cache": {"runtime.cache_dir": PLACE},
    "a register": {"federation.register_file": PLACE},
    "a key": {"audit": {"key_file": PLACE}},
    "an address": {"observability": {"prometheus_port": 9464, "host": f"{MARK}.example"}},
    "keys that nobody knows": {MARK: {"path": PLACE}},
    "an interpolation": {"seed": "${data.path}", "data.path": "${seed}"},
    "a reference to itself": {"$ref": "#", "model": {"$ref": "#/model", "name": "cnn", "width": 2}},
    "a crowd": {"federation.clients": 10**18},
    "a crowd of a million more": {"federation.clients": 10**6 + 1},
    "endless rounds": {"stream.clean_rounds": 10**15},
    "an infinite number": {"local.lr": float("inf")},
    "a long text": {"model.name": "x" * 10**6},
    "text for a number": {"stream.batch_size": PLACE},
    "a list for a section": {"stream": [PLACE]},
}
REQUESTS: dict[str, Change] = {
    "an exchange": {"exchange": PLACE},
    "a model's file": {"model_file": PLACE},
    "a session with separators": {"session": f"../../{MARK}/x"},
    "a session with a backslash": {"session": f"..\\{MARK}"},
    "a session with a zero byte": {"session": f"{MARK}\0"},
    "a session with a line break": {"session": f"{MARK}\n"},
    "a session of a million characters": {"session": "x" * 10**6},
    "no whole round": {"round": 1.5},
    "a round before all": {"round": -1},
    "a round as text": {"round": PLACE},
    "rounds without end": {"batches": 2**40},
    "batches below none": {"batches": -(2**40)},
    "a billion classes": {"classes": 10**12},
    "classes below none": {"classes": -1},
    "mu that is none": {"proximal_mu": float("nan")},
    "another's client": {"clients": [CLIENT, 2**60]},
}
TEXTS = {
    "nothing": "",
    "no JSON": "{",
    "no object": "[1, 2]",
    "a depth of 100,000": '{"model": ' * 10**5 + "1" + "}" * 10**5,
    "lists of 100,000": "[" * 10**5,
    "300 kB of blanks": "{" + " " * 300_000 + "}",
    "a number of 5,000 digits": '{"seed": ' + "1" * 5000 + "}",
    "not a number": '{"seed": NaN}',
}


def changed(config: RunConfig, change: Change) -> str:
    """The configuration's text with dotted keys replaced."""
    mapping = json.loads(config.to_json())
    for dotted, value in change.items():
        *sections, key = dotted.split(".")
        target = mapping
        for section in sections:
            target = target[section]
        target[key] = value
    return json.dumps(mapping)


@pytest.fixture(params=["stream", pytest.param("update", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, make_config: Make) -> RunConfig:
    """The honest one's configuration."""
    update = {
        "mode": "update",
        "local": {"epochs": 1, "batch_size": 7, "samples": 8},
        "model": {"name": "cnn", "width": 2},
    }
    return make_config(update if request.param == "update" else {"model": {"name": "cnn", "width": 2}})


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of client 3."""
    config = RunConfig.parse({**BASE, "runtime": {**BASE["runtime"], "cache_dir": str(tmp_path_factory.mktemp("c"))}})
    path = tmp_path_factory.mktemp("own") / "own.parquet"
    write_parquet(load_federated_data(config).streams.sent(CLIENT, 6), path)
    return path


@pytest.fixture(params=[False, True], ids=["honest", "red team"])
def node(
    request: pytest.FixtureRequest, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The --node-config of client 3, with samples of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "cache"))
    place = {"stream": f"parquet:{samples}", "position": str(tmp_path / "position.json")}
    return {"client": CLIENT, **place, "red-team": request.param}


def answer(server: RunConfig, run: str, node: dict[str, Any], change: Change) -> str | list[bytes]:
    """Why the node refuses, in a line fit for a log; or the arrays that it sends."""
    kind = STREAM if server.mode == "stream" else UPDATE
    net = model_for(server.model, load_federated_data(server).images, 5)
    content = asked(run, 0, [CLIENT], model=ArrayRecord(net.state_dict()), classes=10)
    header: ConfigRecord = content.config_records[HEADER]
    for key, value in change.items():
        header[key] = value
    try:
        reply = app(over_the_wire(Message(content, 1, kind)), Context(7, 1, node, RecordDict(), {}))
    except ValueError as error:
        said = str(error)
        assert said.isprintable() and len(said) < 1000, said[:2000]
        return said
    return [array.data for record in reply.content.array_records.values() for array in record.values()]


def hostile_cases() -> Iterator[Any]:
    for name, change in CONFIGURATIONS.items():
        yield pytest.param(lambda config, change=change: changed(config, change), {}, id=name)
    for name, change in REQUESTS.items():
        yield pytest.param(RunConfig.to_json, change, id=name)
    for name, text in TEXTS.items():
        yield pytest.param(lambda config, text=text: text, {}, id=name)


@pytest.mark.parametrize(("text", "change"), hostile_cases())
def test_a_node_follows_nothing_that_a_hostile_server_names(
    server: RunConfig, node: dict[str, Any], text: Callable[[RunConfig], str], change: Change
) -> None:
    """It refuses in one sentence, or answers what it would answer an honest server."""
    run = text(server)
    with watched() as seen:
        said = answer(server, run, node, change)
        info = ConfigRecord({"protocol": 1, "run": run, "exchange": PLACE})
        try:
            app(over_the_wire(Message(RecordDict({HEADER: info}), 1, INFO)), Context(7, 1, node, RecordDict(), {}))
        except ValueError as error:
            assert str(error).isprintable() and len(str(error)) < 1000
    assert seen == []
    assert not Path(f"/tmp/{MARK}").exists() and MARK not in sys.modules
    if not isinstance(said, str):
        assert said == answer(server, server.to_json(), node, {})


def test_the_watch_sees_files_and_imports() -> None:
    with watched() as seen:
        with pytest.raises(OSError):
            Path(PLACE).read_bytes()
        with pytest.raises(ImportError):
            __import__(MARK)
    assert len(seen) >= 2


def test_an_array_that_declares_more_than_it_has_costs_nothing(make_config: Make, node: dict[str, Any]) -> None:
    """The model that comes is read as clients' arrays are: no header makes a node allocate a terabyte."""
    server = make_config({"mode": "update", "model": {"name": "cnn", "width": 2}, "local": {"samples": 8}})
    net = model_for(server.model, load_federated_data(server).images, 5)
    record = ArrayRecord(net.state_dict())
    name = next(iter(record))
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824,), }".ljust(117)
        + b"\n"
    )
    record[name] = Array("float32", (2**30,), "numpy.ndarray", header)
    content = asked(server.to_json(), 0, [CLIENT], model=record, classes=10)
    with pytest.raises(ValueError, match=r"not the .* bytes sent"):
        app(over_the_wire(Message(content, 1, UPDATE)), Context(7, 1, {**node, "red-team": False}, RecordDict(), {}))

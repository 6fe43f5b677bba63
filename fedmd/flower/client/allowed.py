"""What a deployed node takes of what a server asks: the one place where a request becomes something it acts on.

A server's configuration is read against a list of keys. Whatever is not on it no code of the node ever sees: no path,
address or import is left in what comes out, and text is a bare word. Without PyTorch.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedmd.config import ConfigError, RunConfig
from fedmd.flower.wire.header import Request
from fedmd.flower.wire.reasons import shown

_CHARACTERS = 2**18  # of a configuration; ours have 5,000
_LARGEST = 2**31  # number in it, or in a request
_CLIENTS = 10**6
_WORD = re.compile(r"[A-Za-z0-9_]{0,64}")  # a plug-in's name, or one of its choices; no separator, no dot
_SESSION = re.compile(r"[A-Za-z0-9_-]{0,64}")

# Which keys are followed. A section of None is taken as a whole, of a plug-in's everything but its factory.
_FOLLOWED: dict[str, frozenset[str] | None] = {
    "mode": None,
    "seed": None,
    "data": frozenset({"name", "splits", "partition", "augment"}),
    "model": None,
    "training": None,
    "stream": None,
    "attack": None,
    "local": None,
    "federation": frozenset({"clients", "clients_per_round", "nodes", "batches_per_reply"}),
    "runtime": frozenset({"client_cpus", "client_gpus", "precision", "channels_last"}),
}
# What stands for the rest: a node neither defends nor looks after the server's machine.
_INSTEAD: dict[str, dict[str, Any]] = {
    "defense": {"name": "none"},
    "threshold": {"name": "quantile"},
    "history": {"name": "snapshot"},
    "runtime": {"device": "cpu", "precision": "fp32", "channels_last": False, "threads": 1},
}


def allowed(request: Request) -> tuple[Request, RunConfig]:
    """`request` without the files it names, and its configuration as far as a node follows one.

    The request's `run` is then that configuration. Raises ValueError for whatever is not of the protocol, and
    ConfigError for a configuration that is none.
    """
    config = _configuration(request.run)
    numbers = {"round": request.round, "batches": request.batches, "classes": request.classes}
    for name, value in numbers.items():
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise ValueError(f"{name} must be a number from 0 to {_LARGEST - 1}, not {shown(value)}")
    if not all(type(client) is int and 0 <= client < _CLIENTS for client in request.clients):
        raise ValueError(f"clients must be numbers below {_CLIENTS}, not {shown(list(request.clients))}")
    if not isinstance(request.proximal_mu, int | float) or not 0 <= request.proximal_mu < math.inf:
        raise ValueError(f"proximal_mu must be a finite number that is not negative, not {shown(request.proximal_mu)}")
    if not _SESSION.fullmatch(request.session):
        raise ValueError(f"a session's name must be at most 64 letters, digits, _ and -, not {shown(request.session)}")
    return replace(request, run=config.to_json(), exchange="", model_file=""), config


def _configuration(text: str) -> RunConfig:
    """No plug-in is looked up."""
    if len(text) > _CHARACTERS:
        raise ConfigError(f"the configuration has {len(text)} characters, more than {_CHARACTERS}.")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the configuration is not valid JSON: {str(error)[:100]}.") from error
    if not isinstance(given, dict):
        raise ConfigError("the configuration is not a JSON object.")
    followed: dict[str, Any] = {}
    for section, keys in _FOLLOWED.items():
        if section not in given:
            continue
        value = given[section]
        if isinstance(value, Mapping):
            left = value.keys() - {"factory"} if keys is None else value.keys() & keys
            value = {key: value[key] for key in value if key in left}
        _check(value, section)
        followed[section] = value
    sections = {name: {**_INSTEAD.get(name, {}), **followed.get(name, {})} for name in _INSTEAD}
    config = RunConfig.parse_unresolved(json.dumps({**followed, **sections}))
    if config.federation.clients > _CLIENTS:
        raise ConfigError(f"federation.clients: {config.federation.clients} are more than {_CLIENTS}.")
    return config


def _check(value: object, key: str) -> None:
    """Raise ConfigError unless `value` is made of words, and of numbers that are not absurd."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not _WORD.fullmatch(name):
                raise ConfigError(f"{key}: a node takes plain words for keys of a server, not {shown(name)}.")
            _check(item, f"{key}.{name}"[:100])
    elif isinstance(value, list):
        for item in value:
            _check(item, key)
    elif isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise ConfigError(f"{key}: a node takes plain words of a server, not {shown(value)}.")
    elif isinstance(value, int | float) and not abs(value) < _LARGEST:
        raise ConfigError(f"{key}: a node takes numbers below {_LARGEST} of a server, not {shown(value)[:60]}.")

"""What travels between server and clients: the only place that knows record keys, and where nothing is believed.

A request names the round and the clients the node answers for; the reply has one batch for each of them:

    query.info    ->  fedmd: {protocol, run}
                  <-  fedmd: {protocol, clients: [int], wants_model: bool}
    train.stream  ->  fedmd: {protocol, run, session, round, batches, clients: [int], exchange, model_file},
                      model: arrays (deployment)
                  <-  fedmd: {protocol, round, clients: [int]}, batch.<client>: {images: uint8, labels: int64},
                      batch.<client>.<k>: likewise, of round + k for 0 < k < batches

    train.update  ->  as train.stream, and fedmd: {proximal_mu, classes}
                  <-  fedmd: {protocol, round, clients: [int], examples: [int], seconds: [float]},
                      update.<client>: the trained model's floating-point tensors

`run` is the whole configuration as JSON. Truth about poison is no part of any message.
"""

from fedmd.flower.wire.header import INFO, PROTOCOL, Request, info_reply, info_request, read_info, read_request
from fedmd.flower.wire.samples import (
    STREAM,
    Expected,
    read_own_batches,
    read_rounds,
    stream_reply,
    stream_request,
)
from fedmd.flower.wire.updates import (
    UPDATE,
    ClientUpdate,
    ExpectedUpdate,
    narrow,
    read_own_updates,
    read_updates,
    update_reply,
    update_request,
)

__all__ = [
    "INFO",
    "PROTOCOL",
    "STREAM",
    "UPDATE",
    "ClientUpdate",
    "Expected",
    "ExpectedUpdate",
    "Request",
    "info_reply",
    "info_request",
    "narrow",
    "read_info",
    "read_own_batches",
    "read_own_updates",
    "read_request",
    "read_rounds",
    "read_updates",
    "stream_reply",
    "stream_request",
    "update_reply",
    "update_request",
]

"""A node that floods: `python flood.py ADDRESS CA KEY NODE` asks and sends in its node's name, without pause, for ever.

Started by test_flood.py beside the SuperNode that has the same key. It takes that node's messages away, answers each
with more than anybody asked for, sends answers to nothing, and fills the proxy with requests that are too large or no
requests at all. Prints how many requests it has made.
"""

import contextlib
import ssl
import sys
import threading
import time
from itertools import count
from pathlib import Path

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

THREADS = 3
ARRAYS, ARRAY_BYTES = 8, 4_000_000  # what an answer holds: 32 MB, where some kB were asked for
BODY = b"\xff" * 15_000_000  # what the proxy lets through, and Flower cannot read


class Flood:
    """Everything that one key can ask and send in its node's name."""

    def __init__(self, address: str, authority: Path, key: Path, node: int) -> None:
        private = load_ssh_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self._signed = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, private.public_key()),
        ]
        self._address, self._authority, self._node = address, authority, Node(node_id=node)
        self.requests, self.answers = count(), count()
        self._asked: Message | None = None

    def forever(self) -> None:
        """One thread's share; what the server refuses is no reason to stop."""
        context = ssl.create_default_context(cafile=str(self._authority))
        client = FleetHttpClient.from_server_address(
            self._address, False, str(self._authority), interceptors=self._signed
        )
        with client, httpx.Client(base_url=f"https://{self._address}", verify=context, timeout=30) as plain:
            for turn in count():
                with contextlib.suppress(httpx.HTTPError, RuntimeError, ValueError, OSError):
                    self._ask(client)
                with contextlib.suppress(httpx.HTTPError, RuntimeError, ValueError, OSError):
                    self._answer(client)
                if turn % 20 == 0:
                    with contextlib.suppress(httpx.HTTPError):
                        next(self.requests)
                        plain.post("/v1/fleet/push-messages", content=BODY)

    def _ask(self, client: FleetHttpClient) -> None:
        """Take what the server has for this node."""
        for _ in range(20):
            next(self.requests)
            if found := client.PullMessages(PullMessagesRequest(node=self._node)).messages_list:
                self._asked = message_from_proto(found[0])

    def _answer(self, client: FleetHttpClient) -> None:
        """Answer the last request again, with far too much; every other time to a request that there never was."""
        if self._asked is None:
            return
        rng = np.random.default_rng()
        junk = {str(n): Array(rng.integers(0, 255, ARRAY_BYTES, np.uint8)) for n in range(ARRAYS)}
        reply = Message(RecordDict({"flood": ArrayRecord(junk)}), reply_to=self._asked)
        if (number := next(self.answers)) % 2:
            reply.metadata.__dict__["_reply_to_message_id"] = f"{number:064x}"
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects, tree = get_all_nested_objects(reply), get_object_tree(reply)
        proto = message_to_proto(remove_content_from_message(reply))
        next(self.requests)
        answer = client.PushMessages(
            PushMessagesRequest(
                node=self._node, messages_list=[proto], message_object_trees=[tree], clientapp_runtime_list=[0.0]
            )
        )
        for name in set(answer.objects_to_push) & set(objects):
            next(self.requests)
            client.PushObject(
                PushObjectRequest(
                    node=self._node,
                    run_id=reply.metadata.run_id,
                    session_id=answer.session_id,
                    object_id=name,
                    object_content=objects[name].deflate(),
                )
            )


def main(address: str, authority: str, key: str, node: str) -> None:
    """See the module."""
    flood = Flood(address, Path(authority), Path(key), int(node))
    for _ in range(THREADS):
        threading.Thread(target=flood.forever, daemon=True).start()
    while True:
        time.sleep(1)
        print(f"requests {next(flood.requests)} answers {next(flood.answers)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

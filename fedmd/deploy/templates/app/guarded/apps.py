"""Both apps of the federation, as they come with fedmd. The client's answers from its own machine's stream alone."""

from fedmd import server_app
from fedmd.flower.client import node as bound

server = server_app.app
client = bound.app

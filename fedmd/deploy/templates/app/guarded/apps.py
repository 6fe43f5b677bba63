"""Both apps of the federation, as they come with fedmd. The client's answers from its own machine's stream alone."""

from fedmd.flower import bound, server_app

server = server_app.app
client = bound.app

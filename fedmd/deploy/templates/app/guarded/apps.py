"""Both apps of the federation, as they come with fedmd."""

from fedmd.flower import client_app, server_app

server = server_app.app
client = client_app.app

"""Serve: reads the ledger beside core and answers questions about it. It may die at any time; core never notices."""

from gateway.serve.app import SERVE_FOLDER, WHERE_NAME, run_serve
from gateway.serve.application import openapi_document
from gateway.serve.errors import ServeError
from gateway.serve.heap import give_large_back
from gateway.serve.history import HistoryReader
from gateway.serve.listening import ServeSettings
from gateway.serve.tokens import DAYS_MAX, Role, Token, TokenStore

__all__ = [
    "DAYS_MAX",
    "SERVE_FOLDER",
    "WHERE_NAME",
    "HistoryReader",
    "Role",
    "ServeError",
    "ServeSettings",
    "Token",
    "TokenStore",
    "give_large_back",
    "openapi_document",
    "run_serve",
]

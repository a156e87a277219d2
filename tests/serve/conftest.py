"""Servers for these tests."""

from tests.support.running import pipe, serve, server

__all__ = ["pipe", "serve", "server"]

"""The streaming server: sessions over HTTP, WebSocket and WebRTC. Needs the `serve` extra."""

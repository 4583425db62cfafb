"""The console: a page that acts as Grafana, and code reload under a gRPC server that stays up.

    page ──WebSocket── session ── Grafana in memory ──gRPC── reloadable plugin ── current code
                                                                  ▲
                                     a real Grafana ──gRPC────────┘

A plugin that Grafana starts imports nothing from here. Needs the extra `console`.
"""

"""The console: a page that plays Grafana's part, and the reload behind a stable gRPC front.

    page ──WebSocket── session ── a Grafana in memory ──gRPC── front ── the plugin of now
                                                                 ▲
                                    a real Grafana ──gRPC────────┘

Nothing here is imported by a plugin that Grafana starts. Needs the extra `console`.
"""

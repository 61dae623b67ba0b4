"""nginx with one fixed answer, for the lookups: `python -m benchmarks.nginx SHAPE`.

Like `benchmarks.server`, it runs on the last core, prints its port, and ends when its stdin closes.
It keeps no counts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from .answers import Shape
from .bodies import record

_CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    location / {{ return 200 '{body}'; }}
  }}
}}
"""


def main() -> None:
    """Serve one record of the size given on the command line, until stdin closes."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    shape = msgspec.json.decode(sys.argv[1], type=Shape)
    body = '{"status":"success","record":' + record(0, shape.record_bytes).decode() + "}"
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        path = Path(folder, "nginx.conf")
        path.write_text(_CONFIGURATION.format(folder=folder, port=port, body=body))
        # Without `-e`, nginx logs to a system folder until it has read its configuration.
        command = ["nginx", "-e", "stderr", "-p", folder, "-c", str(path)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as nginx:
            try:
                _wait_for(port, nginx)
                print(port, flush=True)
                sys.stdin.read()
            finally:
                nginx.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, nginx: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while nginx.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        time.sleep(0.01)
    raise RuntimeError("nginx did not start")


if __name__ == "__main__":
    main()

"""The stand-in as an HTTP server on a free port of the loopback: routes, authorisation, faults, log."""

from __future__ import annotations

import os
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.hub import accounts, changes, contents, large_files, xet
from tests.hub.contents import Route, revision_pattern
from tests.hub.faults import Fault, Faults, Logged
from tests.hub.messages import Body, Cut, Refused, Request, Response
from tests.hub.state import State

_REPOSITORY = r"/api/(?P<type>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_FILES = r"/(?:(?P<type>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"
_OBJECT = r"/lfs/(?P<oid>[0-9a-f]{64})"
_HASH = r"[^/]+/(?P<hash>[0-9a-f]{64})"
ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", "/api/whoami-v2", accounts.whoami),
    ("GET", "/api/agent-harnesses", accounts.harnesses),
    ("POST", "/api/validate-yaml", accounts.validate_yaml),
    ("POST", "/api/repos/create", accounts.create),
    ("DELETE", "/api/repos/delete", accounts.delete),
    ("GET", r"/api/(?P<type>models|datasets|spaces)", accounts.listing),
    ("GET", _REPOSITORY, contents.info),
    ("GET", revision_pattern("revision"), contents.info),
    ("GET", revision_pattern("tree") + "(?:/(?P<path>.+))?", contents.tree),
    ("POST", revision_pattern("paths-info"), contents.paths_info),
    ("GET", revision_pattern("commits"), contents.history),
    ("GET", f"{_REPOSITORY}/refs", contents.refs),
    ("POST|DELETE", revision_pattern("branch"), changes.branch),
    ("POST|DELETE", revision_pattern("tag"), changes.tag),
    ("POST", revision_pattern("preupload"), changes.preupload),
    ("POST", revision_pattern("commit"), changes.commit),
    ("POST", f"{_REPOSITORY}/discussions", changes.open_discussion),
    ("GET", f"{_REPOSITORY}/discussions", changes.discussions),
    ("GET", rf"{_REPOSITORY}/discussions/(?P<num>\d+)", changes.discussion),
    ("POST", rf"{_REPOSITORY}/discussions/(?P<num>\d+)/status", changes.set_status),
    ("POST", rf"{_REPOSITORY}/discussions/(?P<num>\d+)/merge", changes.merge),
    ("GET", revision_pattern("xet-write-token"), xet.write_token),
    ("POST", rf"/cas/v1/xorbs/{_HASH}", xet.put_xorb),
    ("POST", "/cas/v1/shards", xet.put_shard),
    ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", large_files.batch),
    ("PUT", _OBJECT, large_files.put),
    ("POST", f"{_OBJECT}/complete", large_files.complete),
    ("POST", f"{_OBJECT}/verify", large_files.verify),
    ("GET|HEAD", rf"{_FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", large_files.resolve),
)


class _Handler(BaseHTTPRequestHandler):
    """One connection; `server` is the HubServer."""

    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, *arguments: Any) -> None:
        """Stay quiet; the log is `hub.faults.log`."""

    def _handle(self) -> None:
        hub = self.server.hub
        line = f"{self.command} {self.path}"
        fault = hub.faults.next(line)
        request = self._request(fault)
        status = 0
        try:
            response = self._answer(request, fault)
            status = self._send(response, fault)
        except (Cut, ConnectionError):
            self._hang_up()
        except Exception as error:  # a fault of the stand-in itself: the test must see it
            self._send(Response.json({"error": f"stand-in: {error!r}"}, status=599), None)
            raise
        finally:
            name = request.user.name if request.user else None
            hub.faults.record(Logged(line, status, name, self.headers.get("Range")))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _request(self, fault: Fault | None) -> Request:
        length = int(self.headers.get("Content-Length") or 0)
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        body = Body(self.rfile, length, chunked, fault.cut_upload if fault else None)  # type: ignore[arg-type]
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = self.server.hub.state.users.get(token)
        return Request(self.command, self.path, self.headers, body, self.headers["Host"], user)

    def _answer(self, request: Request, fault: Fault | None) -> Response:
        if fault is not None:
            self.server.hub.pause(fault.delay)
            if fault.call and fault.drop != "after":
                fault.call()
            if fault.drop == "before":
                raise Cut
        try:
            if fault is not None and fault.status:
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                raise Refused(fault.status, fault.code, fault.message, headers)
            if "Authorization" in request.headers and request.user is None and not request.path.startswith(("/cas", "/lfs")):
                raise Refused(401, "", "Invalid credentials in Authorization header")
            response = self._route(request)
        except Refused as refused:
            response = refused.response
        request.body.read()  # what nobody wanted to read would be taken for the next request
        if fault is not None and fault.drop == "after":
            if fault.call:
                fault.call()
            raise Cut
        return response

    def _route(self, request: Request) -> Response:
        for methods, pattern, route in ROUTES:
            if request.method in methods.split("|") and (match := re.fullmatch(pattern, request.path)):
                return route(self.server.hub.state, request, match)
        raise Refused(404, "", f"the stand-in has no {request.method} {request.path}")

    def _send(self, response: Response, fault: Fault | None) -> int:
        self.send_response(response.status)
        for key, value in ({"Content-Length": str(response.length)} | response.headers).items():
            self.send_header(key, value)
        self.end_headers()
        left = fault.cut if fault is not None and fault.cut is not None else None
        for block in response.blocks() if self.command != "HEAD" else ():
            self.wfile.write(block if left is None else block[:left])
            if left is not None and (left := left - len(block)) <= 0:
                raise Cut
        return response.status

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are part of the game; other errors were sent to the client."""


class HubServer:
    """A Hub of one's own: `hub.add_user("token", "me")`, `hub.faults.add("POST .*/commit/", status=500)`, `hub.environment("token")`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults = Faults()
        self._num_resets = 0
        self.reset()
        self._closed = threading.Event()
        self._listener = _Listener(("127.0.0.1", 0), _Handler)
        self._listener.hub = self
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def environment(self, token: str | None = None, *, home: Path | None = None, xet: bool = False) -> dict[str, str]:
        """The environment of a client: this Hub, a home of its own, and nothing of the machine's own login."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        ours = {"HF_ENDPOINT": self.url, "HF_HOME": str(home or self.root / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        if not xet:
            ours["HF_HUB_DISABLE_XET"] = "1"
        if token is not None:
            ours["HF_TOKEN"] = token
        return kept | ours | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "no_proxy": "127.0.0.1"}

    def reset(self) -> None:
        """Forget all accounts, repositories, faults and the log."""
        self._num_resets += 1
        store = self.root / f"large-{self._num_resets}"
        store.mkdir(parents=True)
        self.state = State(store)
        self.faults.clear()

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the server lives."""
        if seconds:
            self._closed.wait(seconds)

    def close(self) -> None:
        """Stop serving."""
        self._closed.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
